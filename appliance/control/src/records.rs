//! Control's tables, and how they are read at start.
//!
//! Invariants: facts are stored field by field (each a value of its own, a blob where it is too large), so that a step
//! writes what changed and no more; the plan is a blob; a host's facts and conditions change in one transaction.

use dayzero_model::condition::Conditions;
use dayzero_model::facts::HostFacts;
use dayzero_model::ids::{HostName, MacAddr, Name, Sha256};
use dayzero_model::site::Site;
use dayzero_model::units::Timestamp;
use dayzero_model::vm::Vm;
use dayzero_pxe::Lease;
use dayzero_store::{BlobRef, Pair, Store, StoreError, Table, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

pub(crate) static PLAN: Table<String, PlanRecord> = Table::new("plan");
pub(crate) static CONDITIONS: Table<HostName, Conditions> = Table::new("host.conditions");
pub(crate) static FACTS: Table<Pair<HostName, String>, Part> = Table::new("host.facts");
pub(crate) static CLUSTERS: Table<Name, ClusterRecord> = Table::new("cluster");
pub(crate) static VMS: Table<Name, Vm> = Table::new("vm");
pub(crate) static LEASES: Table<Pair<Name, Ipv4Addr>, Lease> = Table::new("dhcp.lease");
/// What our DHCPv6 is called, under [`CURRENT`]: made once, kept for good.
pub(crate) static DUID: Table<String, Vec<u8>> = Table::new("dhcp6.duid");
pub(crate) static PENDING: Table<MacAddr, crate::view::Pending> = Table::new("pending");

/// Key of the plan that holds.
pub(crate) const CURRENT: &str = "current";
/// A field larger than this becomes a blob; the store's own limit is 16 KiB with its envelope.
const INLINE: usize = 12 << 10;

/// The plan that holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanRecord {
    pub(crate) hash: Sha256,
    pub(crate) site: BlobRef,
    pub(crate) applied: Timestamp,
    pub(crate) by: String,
}

/// One field of a host's facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    Inline(Value),
    Blob(BlobRef),
}

/// What is decided for a cluster as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterRecord {
    /// Host that alone changes volume metadata.
    pub(crate) elected: Option<HostName>,
    /// Primary storage whose volume group is there.
    pub(crate) volume_groups: Vec<Name>,
}

/// Facts as fields.
fn fields(facts: &HostFacts) -> Map<String, Value> {
    match serde_json::to_value(facts) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Writes the fields that differ. Blocks where a field becomes a blob.
pub(crate) fn put_facts(
    store: &Store,
    tx: &mut Transaction,
    host: &HostName,
    before: &HostFacts,
    after: &HostFacts,
) -> Result<(), StoreError> {
    let (before, after) = (fields(before), fields(after));
    for (name, value) in &after {
        if before.get(name) == Some(value) {
            continue;
        }
        let text = value.to_string();
        let part = if text.len() > INLINE {
            Part::Blob(store.put_blob(text.as_bytes())?)
        } else {
            Part::Inline(value.clone())
        };
        tx.put(&FACTS, &Pair(host.clone(), name.clone()), &part)?;
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        tx.delete(&FACTS, &Pair(host.clone(), name.clone()))?;
    }
    Ok(())
}

/// Reads a host's facts.
pub(crate) fn get_facts(store: &Store, host: &HostName) -> Result<HostFacts, StoreError> {
    let mut map = fields(&HostFacts::default());
    for entry in store.scan(&FACTS, &format!("{host}/"))? {
        let value = match entry.value {
            Part::Inline(value) => value,
            Part::Blob(blob) => parse(&entry.key.to_string(), &store.get_blob(&blob)?)?,
        };
        map.insert(entry.key.1, value);
    }
    serde_json::from_value(Value::Object(map)).map_err(|error| decode(&host.to_string(), &error))
}

fn parse<T: serde::de::DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| decode(key, &error))
}

fn decode(key: &str, error: &serde_json::Error) -> StoreError {
    StoreError::Decode { table: "host.facts".to_owned(), key: key.to_owned(), detail: error.to_string() }
}

/// The plan that holds, if there is one. Blocks.
pub(crate) fn get_plan(store: &Store) -> Result<Option<(Site, Sha256)>, StoreError> {
    let Some(record) = store.get(&PLAN, &CURRENT.to_owned())? else { return Ok(None) };
    let site = parse(CURRENT, &store.get_blob(&record.site)?)?;
    Ok(Some((site, record.hash)))
}

/// All entries of a table by key.
pub(crate) fn all<K, V>(store: &Store, table: &Table<K, V>) -> Result<BTreeMap<K, V>, StoreError>
where
    K: dayzero_store::Key + Ord,
    V: dayzero_store::Value,
{
    Ok(store.scan(table, "")?.into_iter().map(|entry| (entry.key, entry.value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_stored_by_field_whatever_their_size() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), dayzero_store::Options::default()).unwrap();
        let host: HostName = "host1".parse().unwrap();
        let facts = HostFacts {
            bmc_lease: Some(Timestamp(7)),
            boot_order: vec!["x".repeat(100); 1000],
            ..HostFacts::default()
        };
        let mut tx = store.tx();
        put_facts(&store, &mut tx, &host, &HostFacts::default(), &facts).unwrap();
        tx.commit_blocking().unwrap();
        assert_eq!(get_facts(&store, &host).unwrap(), facts);
        assert_eq!(store.count(&FACTS, "").unwrap(), 2, "what did not change is not written");
        let less = HostFacts { bmc_lease: None, ..facts.clone() };
        let mut tx = store.tx();
        put_facts(&store, &mut tx, &host, &facts, &less).unwrap();
        tx.commit_blocking().unwrap();
        assert_eq!(get_facts(&store, &host).unwrap(), less);
        assert_eq!(get_facts(&store, &"host".parse().unwrap()).unwrap(), HostFacts::default());
    }
}
