//! What an apply would change: the difference of two plans by path, for people and for tools.
//!
//! Invariants: equal plans differ in nothing (and have one hash); an object is known by its name, so that a renamed
//! host is one removed and one added. It does not say what survives the change: that is control's task.

use crate::canonical;
use dayzero_model::site::Site;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// What happened to one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Added {
        /// Its value.
        new: Value,
    },
    /// It is gone.
    Removed {
        /// What it was.
        old: Value,
    },
    /// It has another value.
    Changed {
        /// What it was.
        old: Value,
        /// What it is.
        new: Value,
    },
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Where, by names: `zones/zone1/pods/pod1/clusters/kvm1/hosts/host1/address`.
    pub path: String,
    /// What.
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// All differences, in order of their paths as the plan has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PlanDiff {
    /// Digest of the old plan, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_hash: Option<dayzero_model::Sha256>,
    /// Digest of the new plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_hash: Option<dayzero_model::Sha256>,
    /// The differences.
    pub changes: Vec<Change>,
}

/// Compares what the store knows with what the file says. Without an old plan everything is new.
pub fn diff(old: Option<&Site>, new: &Site) -> PlanDiff {
    let before = old.map_or_else(|| Value::Object(Map::new()), canonical::value);
    let mut changes = Vec::new();
    compare("", &before, &canonical::value(new), &mut changes);
    PlanDiff { old_hash: old.map(canonical::plan_hash), new_hash: Some(canonical::plan_hash(new)), changes }
}

fn join(path: &str, step: &str) -> String {
    if path.is_empty() { step.to_owned() } else { format!("{path}/{step}") }
}

fn compare(path: &str, old: &Value, new: &Value, out: &mut Vec<Change>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(before), Value::Object(after)) => objects(path, before, after, out),
        (Value::Array(before), Value::Array(after)) if keyed(before) && keyed(after) => {
            lists(path, before, after, out);
        }
        _ => {
            let kind = ChangeKind::Changed { old: old.clone(), new: new.clone() };
            out.push(Change { path: path.to_owned(), kind });
        }
    }
}

fn keyed(items: &[Value]) -> bool {
    items.iter().all(|item| canonical::name(item).is_some())
}

fn objects(path: &str, before: &Map<String, Value>, after: &Map<String, Value>, out: &mut Vec<Change>) {
    for (key, old) in before {
        match after.get(key) {
            Some(new) => compare(&join(path, key), old, new, out),
            None => removed(&join(path, key), old, out),
        }
    }
    for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        added(&join(path, key), new, out);
    }
}

fn by_name(items: &[Value]) -> BTreeMap<&str, &Value> {
    items.iter().filter_map(|item| Some((canonical::name(item)?, item))).collect()
}

fn lists(path: &str, before: &[Value], after: &[Value], out: &mut Vec<Change>) {
    let (before, after) = (by_name(before), by_name(after));
    for (name, old) in &before {
        match after.get(name) {
            Some(new) => compare(&join(path, name), old, new, out),
            None => removed(&join(path, name), old, out),
        }
    }
    for (name, new) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        added(&join(path, name), new, out);
    }
}

/// A new list of named objects is shown object by object, so that each host has its line.
fn added(path: &str, new: &Value, out: &mut Vec<Change>) {
    each(path, new, &mut |path, value| {
        out.push(Change { path: path.to_owned(), kind: ChangeKind::Added { new: value.clone() } });
    });
}

fn removed(path: &str, old: &Value, out: &mut Vec<Change>) {
    each(path, old, &mut |path, value| {
        out.push(Change { path: path.to_owned(), kind: ChangeKind::Removed { old: value.clone() } });
    });
}

/// Calls `push` for an object without its named children, and then for each of those.
fn each(path: &str, value: &Value, push: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Array(items) if !items.is_empty() && keyed(items) => {
            for item in items {
                each(&join(path, canonical::name(item).unwrap_or_default()), item, push);
            }
        }
        Value::Object(map) if map.contains_key("name") => {
            let nested =
                |value: &Value| value.as_array().is_some_and(|items| !items.is_empty() && keyed(items));
            let own = map
                .iter()
                .filter(|(_, value)| !nested(value))
                .map(|(key, value)| (key.clone(), value.clone()));
            push(path, &Value::Object(own.collect()));
            for (key, list) in map.iter().filter(|(_, value)| nested(value)) {
                each(&join(path, key), list, push);
            }
        }
        other => push(path, other),
    }
}

impl PlanDiff {
    /// True if an apply would change nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many places are added, removed and changed.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |test: fn(&ChangeKind) -> bool| self.changes.iter().filter(|change| test(&change.kind)).count();
        (
            count(|kind| matches!(kind, ChangeKind::Added { .. })),
            count(|kind| matches!(kind, ChangeKind::Removed { .. })),
            count(|kind| matches!(kind, ChangeKind::Changed { .. })),
        )
    }

    /// The diff as JSON.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

impl fmt::Display for PlanDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "no changes");
        }
        for change in &self.changes {
            match &change.kind {
                ChangeKind::Added { new } => {
                    writeln!(f, "{}", format!("+ {}  {}", change.path, brief(&change.path, new)).trim_end())?
                }
                ChangeKind::Removed { old } => {
                    writeln!(f, "{}", format!("- {}  {}", change.path, brief(&change.path, old)).trim_end())?
                }
                ChangeKind::Changed { old, new } => {
                    writeln!(
                        f,
                        "~ {}  {} -> {}",
                        change.path,
                        brief(&change.path, old),
                        brief(&change.path, new)
                    )?;
                }
            }
        }
        let (added, removed, changed) = self.counts();
        write!(f, "{added} to add, {removed} to remove, {changed} to change")
    }
}

/// A value in one line: the keys of an object, nested ones in braces, cropped.
fn brief(path: &str, value: &Value) -> String {
    let text = match value {
        Value::Object(map) => keys(map),
        other => under(path.rsplit('/').next().unwrap_or(path), other),
    };
    let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().count() > 240 {
        format!("{}…", text.chars().take(239).collect::<String>())
    } else {
        text
    }
}

/// A value under its key: sizes with their unit.
fn under(key: &str, value: &Value) -> String {
    match value.as_u64().filter(|_| matches!(key, "size" | "disk")) {
        Some(bytes) => dayzero_model::Bytes(bytes).to_string(),
        None => nested(value),
    }
}

fn keys(map: &Map<String, Value>) -> String {
    let shown = map.iter().filter(|(key, value)| *key != "name" && !value.is_null());
    // Plain values first: they tell more in a cropped line.
    let (nested_ones, plain): (Vec<_>, Vec<_>) =
        shown.partition(|(_, value)| value.is_object() || value.is_array());
    let all = plain.into_iter().chain(nested_ones);
    all.map(|(key, value)| format!("{key}={}", under(key, value))).collect::<Vec<_>>().join(" ")
}

fn nested(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => format!("{{{}}}", keys(map)),
        Value::Array(items) => format!("[{}]", items.iter().map(nested).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
