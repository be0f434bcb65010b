//! Typed handles: which keys and values a table holds, and how older values are read.
//!
//! A key is text (whatever its type's `Display` writes and `FromStr` reads), so that exports and errors are readable.
//! Tables order their keys as bytes; use [`Ordered`] for numbers and [`Pair`] for a key of two parts.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Revision, StoreError};
use dayzero_model::Timestamp;

/// The longest key, in bytes of text.
pub const MAX_KEY: usize = 512;

/// What can be a key: any type with a canonical text.
pub trait Key: Display + FromStr<Err: Display> {}
impl<T: Display + FromStr<Err: Display>> Key for T {}

/// What can be a value.
pub trait Value: Serialize + DeserializeOwned {}
impl<T: Serialize + DeserializeOwned> Value for T {}

/// Turns the body of a value written by an older schema into one of the table's schema. The error is a sentence.
pub type Upgrade = fn(from: u16, body: serde_json::Value) -> Result<serde_json::Value, String>;

/// A table: its name, its schema version, and how to read older schemas.
///
/// ```
/// use dayzero_store::Table;
/// use dayzero_model::HostName;
/// static NOTES: Table<HostName, String> = Table::new("notes");
/// ```
pub struct Table<K, V> {
    name: &'static str,
    schema: u16,
    upgrade: Option<Upgrade>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Value> Table<K, V> {
    /// A table at schema 1. The name (`a-z`, `0-9`, `-`, `_`, `.`) is part of the stored format.
    pub const fn new(name: &'static str) -> Self {
        Self { name, schema: 1, upgrade: None, types: PhantomData }
    }

    /// The same table at a later schema. `upgrade` is called for each value that was written by an older one.
    pub const fn schema(self, schema: u16, upgrade: Upgrade) -> Self {
        Self { schema, upgrade: Some(upgrade), ..self }
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The schema that is written.
    pub fn current_schema(&self) -> u16 {
        self.schema
    }

    /// `name NUL key`: the key in the one ordered key space.
    pub(crate) fn raw_key(&self, key: &K) -> Result<Vec<u8>, StoreError> {
        let text = key.to_string();
        let rule = if text.is_empty() {
            Some("a key is not empty")
        } else if text.len() > MAX_KEY {
            Some("a key has at most 512 bytes")
        } else if text.contains('\0') {
            Some("a key holds no NUL")
        } else {
            None
        };
        match rule {
            None => Ok(raw_key(self.name, &text)),
            Some(rule) => {
                let key = text.chars().take(40).collect();
                Err(StoreError::BadKey { table: self.name.to_owned(), key, rule })
            }
        }
    }

    pub(crate) fn raw_prefix(&self, prefix: &str) -> Vec<u8> {
        raw_key(self.name, prefix)
    }

    pub(crate) fn decode_entry(&self, raw_key: &[u8], stored: &[u8]) -> Result<Entry<K, V>, StoreError> {
        let (table, text) = split_key(raw_key);
        let bad =
            |detail: String| StoreError::Decode { table: table.to_owned(), key: text.to_owned(), detail };
        let key = text.parse::<K>().map_err(|e| bad(format!("the key does not parse: {e}")))?;
        let envelope = crate::envelope::open(raw_key, stored)?;
        let value = if envelope.schema == self.schema {
            serde_json::from_slice(envelope.body).map_err(|e| bad(e.to_string()))?
        } else if envelope.schema > self.schema {
            let (found, known) = (envelope.schema, self.schema);
            return Err(bad(format!(
                "it was written at schema {found} by a newer version, this one knows {known}"
            )));
        } else {
            let upgrade = self.upgrade.ok_or_else(|| {
                bad(format!("schema {} has no upgrade to {}", envelope.schema, self.schema))
            })?;
            let old = serde_json::from_slice(envelope.body).map_err(|e| bad(e.to_string()))?;
            let new = upgrade(envelope.schema, old).map_err(bad)?;
            serde_json::from_value(new).map_err(|e| bad(format!("after the upgrade: {e}")))?
        };
        Ok(Entry { key, value, revision: envelope.revision, written_at: envelope.written_at })
    }
}

/// A stored value with its key, the revision of the commit that wrote it, and when that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// The commit that wrote it; hand it to [`crate::Transaction::expect_revision`].
    pub revision: Revision,
    /// When that commit was made.
    pub written_at: Timestamp,
}

pub(crate) fn raw_key(table: &str, key: &str) -> Vec<u8> {
    let mut raw = Vec::with_capacity(table.len() + 1 + key.len());
    raw.extend_from_slice(table.as_bytes());
    raw.push(0);
    raw.extend_from_slice(key.as_bytes());
    raw
}

/// Table and key of a raw key; what is not text is shown as such, since it can only come from corruption.
pub(crate) fn split_key(raw: &[u8]) -> (&str, &str) {
    let at = raw.iter().position(|b| *b == 0).unwrap_or(raw.len());
    let (table, rest) = raw.split_at(at);
    let key = rest.get(1..).unwrap_or_default();
    (std::str::from_utf8(table).unwrap_or("(not text)"), std::str::from_utf8(key).unwrap_or("(not text)"))
}

/// A number as a key: written with 20 digits, so that tables order it as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordered(pub u64);

impl Display for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

impl FromStr for Ordered {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A key of two parts, written `first/second`. The first must not contain a `/`; scan with prefix `first/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair<A, B>(pub A, pub B);

impl<A: Display, B: Display> Display for Pair<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

impl<A: FromStr<Err: Display>, B: FromStr<Err: Display>> FromStr for Pair<A, B> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, second) = text.split_once('/').ok_or_else(|| format!("'{text}' has no '/'"))?;
        let first = first.parse().map_err(|e| format!("first part: {e}"))?;
        let second = second.parse().map_err(|e| format!("second part: {e}"))?;
        Ok(Self(first, second))
    }
}
