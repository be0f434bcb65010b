//! One spelling for one plan: what `diff` compares and `plan_hash` digests.
//!
//! Invariants: lists of named objects are sorted by name, keys alphabetically, so that moving a host in the file is no
//! change; the order of NICs (PXE first) and portals stays, since it means something.

use dayzero_model::{Sha256, site::Site};
use serde_json::Value;

/// The digest of a plan: equal for equal plans, whatever the order of their objects in the file.
pub fn plan_hash(site: &Site) -> Sha256 {
    let mut text = String::new();
    write(&value(site), &mut text);
    Sha256::of(text.as_bytes())
}

/// The plan as JSON with its named lists sorted.
pub(crate) fn value(site: &Site) -> Value {
    let mut value = serde_json::to_value(site).unwrap_or(Value::Null);
    sort(&mut value);
    value
}

/// The name of an object in a list, if its list is one of named objects.
pub(crate) fn name(value: &Value) -> Option<&str> {
    value.get("name").and_then(Value::as_str)
}

fn sort(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            if items.iter().all(|item| name(item).is_some()) {
                items.sort_by(|a, b| name(a).cmp(&name(b)));
            }
        }
        Value::Object(map) => map.values_mut().for_each(sort),
        _ => {}
    }
}

/// Compact JSON with sorted keys, whatever features serde_json was built with.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (i, (key, item)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(item, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
