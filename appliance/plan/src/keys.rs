//! The first check of a plan: every key known and there, every value of its kind. All faults, each underlined.
//!
//! Codes: `DZ002` unknown key, `DZ003` duplicate key, `DZ004` wrong value, `DZ005` missing key (`DZ001`, no YAML, is
//! raised while reading). What passes here always reads into the model's types.

use crate::diagnostic::Finding;
use crate::shape::{Kind, Object};
use crate::source::{Path, Span};
use crate::tree::{Entry, Node, Value};
use dayzero_model::{Bytes, MacAddr, Name, OptionBytes, Sha256, Wwn};
use std::net::{IpAddr, Ipv4Addr};

/// Checks a whole tree against an object's shape.
pub(crate) fn check(root: &Node, shape: &'static Object) -> Vec<Finding> {
    let mut findings = Vec::new();
    object(root, shape, &Path::root(), root.span, &mut findings);
    findings
}

fn object(node: &Node, shape: &'static Object, path: &Path, blame: Span, out: &mut Vec<Finding>) {
    let Value::Map(entries) = &node.value else {
        let keys = shape.fields.iter().filter(|field| field.required).map(|field| field.key);
        let keys = keys.collect::<Vec<_>>().join(", ");
        out.push(
            Finding::error("DZ004", format!("{} must be a mapping, not {}", article(shape.name), what(node)))
                .help(if keys.is_empty() {
                    "write `key: value` lines".to_owned()
                } else {
                    format!("it needs the keys {keys}")
                })
                .at_span(node.span, format!("expected {}", article(shape.name))),
        );
        return;
    };
    for entry in entries {
        match shape.fields.iter().find(|field| field.key == entry.key) {
            Some(field) => value(&entry.node, field.kind, &path.key(field.key), entry.key_span, out),
            None => out.push(unknown(entry, shape)),
        }
    }
    let missing: Vec<_> =
        shape.fields.iter().filter(|field| field.required && node.entry(field.key).is_none()).collect();
    if let Some(first) = missing.first() {
        let names = missing.iter().map(|field| format!("`{}`", field.key)).collect::<Vec<_>>().join(", ");
        let is_are = if missing.len() == 1 { "is" } else { "are" };
        out.push(
            Finding::error("DZ005", format!("{} has no {names}", article(shape.name)))
                .help(format!("{names} {is_are} required. `{}`: {}", first.key, first.doc))
                .at_span(named(node, blame), format!("this {}", shape.name)),
        );
    }
}

/// A mapping is best shown by its name, a one-line one whole, else by what the caller blames.
fn named(node: &Node, blame: Span) -> Span {
    node.entry("name").map_or(blame, |entry| entry.node.span)
}

fn unknown(entry: &Entry, shape: &'static Object) -> Finding {
    let keys: Vec<&str> = shape.fields.iter().map(|field| field.key).collect();
    let near = keys.iter().map(|key| (distance(key, &entry.key), *key)).min();
    let help = match near {
        Some((steps, key)) if steps <= 1 + entry.key.len() / 4 => format!("did you mean `{key}`?"),
        _ => format!("{} may have: {}", article(shape.name), keys.join(", ")),
    };
    Finding::error("DZ002", format!("unknown key `{}` in {}", entry.key, article(shape.name)))
        .help(help)
        .at_span(entry.key_span, "nothing reads this")
}

fn value(node: &Node, kind: Kind, path: &Path, key_span: Span, out: &mut Vec<Finding>) {
    match kind {
        Kind::Object(shape) => object(node, shape, path, key_span, out),
        Kind::List(inner) => list(node, *inner, path, key_span, out),
        scalar_kind => {
            let problem = match &node.value {
                Value::Scalar { text, quoted: false } if is_null(text) => {
                    Some("nothing stands here".to_owned())
                }
                Value::Scalar { text, quoted } => scalar(scalar_kind, text, *quoted).err(),
                _ => Some(format!("this is {}", what(node))),
            };
            if let Some(problem) = problem {
                out.push(
                    Finding::error("DZ004", format!("`{}`: {problem}", last(path)))
                        .help(remedy(scalar_kind))
                        .at_span(if node.span.start == node.span.end { key_span } else { node.span }, ""),
                );
            }
        }
    }
}

fn list(node: &Node, inner: Kind, path: &Path, key_span: Span, out: &mut Vec<Finding>) {
    match &node.value {
        Value::List(items) => {
            for (i, item) in items.iter().enumerate() {
                value(item, inner, &path.at(i), item.span, out);
            }
        }
        _ => {
            let span = if node.span.start == node.span.end { key_span } else { node.span };
            out.push(
                Finding::error("DZ004", format!("`{}` must be a list, not {}", last(path), what(node)))
                    .help("write one `- ` item a line, or `[]` for none")
                    .at_span(span, "expected a list"),
            );
        }
    }
}

/// Checks one scalar; the message says what is wrong with it.
pub(crate) fn scalar(kind: Kind, text: &str, quoted: bool) -> Result<(), String> {
    let not = |what: &str| Err(format!("'{}' is no {what}", short(text)));
    let same = |error: &dyn std::fmt::Display| Err(error.to_string());
    match kind {
        Kind::Text if text.trim().is_empty() => Err("an empty text".to_owned()),
        Kind::Text | Kind::Object(_) | Kind::List(_) => Ok(()),
        Kind::Name => text.parse::<Name>().map(drop).or_else(|e| same(&e)),
        Kind::Mac => match text.parse::<MacAddr>() {
            Ok(mac) if mac.0[0] & 1 == 1 => Err(format!("'{mac}' is a group address, which no NIC has")),
            Ok(MacAddr([0, 0, 0, 0, 0, 0])) => Err("all zero, which no NIC has".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => same(&error),
        },
        Kind::Ipv4 => text.parse::<Ipv4Addr>().map(drop).or_else(|_| not("IPv4 address")),
        Kind::Ip => text.parse::<IpAddr>().map(drop).or_else(|_| not("IP address")),
        Kind::Cidr => match text.parse::<ipnet::Ipv4Net>() {
            Ok(net) if net.addr() != net.network() => {
                Err(format!("'{text}' has host bits set: the prefix is {}", net.trunc()))
            }
            Ok(_) => Ok(()),
            Err(_) => not("IPv4 prefix"),
        },
        Kind::Cidr6 => match text.parse::<ipnet::Ipv6Net>() {
            Ok(net) if net.addr() != net.network() => {
                Err(format!("'{text}' has host bits set: the prefix is {}", net.trunc()))
            }
            Ok(net) if net.prefix_len() > 96 => Err(format!(
                "'{text}' leaves less than 32 bits, and machines' addresses end with their IPv4 address"
            )),
            Ok(_) => Ok(()),
            Err(_) => not("IPv6 prefix"),
        },
        Kind::Octets => text.parse::<OptionBytes>().map(drop).or_else(|e| same(&e)),
        Kind::Size => text.parse::<Bytes>().map(drop).or_else(|e| same(&e)),
        Kind::Wwn => text.parse::<Wwn>().map(drop).or_else(|e| same(&e)),
        Kind::Sha256 => text.parse::<Sha256>().map(drop).or_else(|e| same(&e)),
        Kind::Uuid => {
            if is_uuid(text) {
                Ok(())
            } else {
                not("UUID")
            }
        }
        Kind::Bool => {
            if !quoted && matches!(text, "true" | "false") {
                Ok(())
            } else {
                not("truth value")
            }
        }
        Kind::Number(..) if quoted => {
            Err(format!("'{}' stands in quotes, which makes it a text", short(text)))
        }
        Kind::Number(low, high) => match number(text) {
            None => not("whole number"),
            Some(n) if n < low || n > high => Err(format!("{n} is not within {low} to {high}")),
            Some(_) => Ok(()),
        },
        Kind::OneOf(words) if words.contains(&text) => Ok(()),
        Kind::OneOf(_) => not("word that is known here"),
    }
}

/// Only plain decimals: no `0o17`, `1_000`, `+5` or leading zeros, which YAML readers disagree on.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn remedy(kind: Kind) -> String {
    match kind {
        Kind::Text => "write a text".to_owned(),
        Kind::Name => "write 1 to 63 of a-z, 0-9 and '-', with no '-' at either end".to_owned(),
        Kind::Mac => "write six octets in hex in quotes, such as \"52:54:00:12:34:56\"".to_owned(),
        Kind::Ipv4 => "write an address such as 10.77.0.11".to_owned(),
        Kind::Ip => "write an address such as 10.77.0.11 or fd77::11".to_owned(),
        Kind::Cidr => "write a prefix such as 10.77.0.0/24".to_owned(),
        Kind::Cidr6 => "write a prefix of at most 96 bits, such as fd77:0:0:1::/64".to_owned(),
        Kind::Octets => "write 0x and hex digits, or a text; in quotes if it is only digits".to_owned(),
        Kind::Size => "write a size such as 4 GiB or 6 TB".to_owned(),
        Kind::Wwn => "write 16 or 32 hex digits, such as 0x5000c50012345678".to_owned(),
        Kind::Sha256 => "write 64 hex digits, as sha256sum prints them".to_owned(),
        Kind::Uuid => "write it as 6c1d5a30-7f0e-4b6e-9a51-0d2b1c000001".to_owned(),
        Kind::Bool => "write true or false, without quotes".to_owned(),
        Kind::Number(low, high) => format!("write a whole number from {low} to {high}, without quotes"),
        Kind::OneOf(words) => format!("write one of: {}", words.join(", ")),
        Kind::Object(_) | Kind::List(_) => String::new(),
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn what(node: &Node) -> &'static str {
    match &node.value {
        Value::Scalar { text, quoted: false } if is_null(text) => "nothing",
        Value::Scalar { .. } => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}

fn last(path: &Path) -> String {
    let text = path.to_string();
    text.rsplit('.').next().unwrap_or_default().to_owned()
}

fn short(text: &str) -> String {
    if text.chars().count() > 60 {
        format!("{}…", text.chars().take(60).collect::<String>())
    } else {
        text.to_owned()
    }
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']) || noun == "NIC";
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

/// Levenshtein distance; both are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}
