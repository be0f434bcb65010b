//! Datagrams of boots that failed, in the store: what was in memory when the failure was recorded, as pcapng sections.
//!
//! Invariants: bounded for each MAC and in all, the oldest go first; what was stored once is not stored again with the next
//! failure; the record and what it replaces change in one transaction, and a blob is deleted after the record that named it.

use crate::Timeline;
use crate::pcapng;
use dayzero_model::ids::{BootId, HostName, MacAddr};
use dayzero_model::units::Timestamp;
use dayzero_store::{BlobRef, Ordered, Pair, StoreError, Table};
use serde::{Deserialize, Serialize};

/// Failed boots by MAC, in the order in which they failed.
static BOOTS: Table<Pair<String, Ordered>, FailedBoot> = Table::new("timeline.boot");

/// Boots kept of a MAC.
const KEEP: usize = 4;
/// Boots kept in all: at most some 100 MiB.
const ALL: usize = 1024;

/// A boot that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailedBoot {
    host: HostName,
    boot: Option<BootId>,
    /// When the failure was recorded.
    at: Timestamp,
    /// What failed, in a sentence.
    cause: String,
    datagrams: usize,
    /// Their pcapng section.
    section: BlobRef,
}

/// A failed boot, to be kept.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whose.
    pub host: HostName,
    /// Which boot, where one was open.
    pub boot: Option<BootId>,
    /// When.
    pub at: Timestamp,
    /// What failed, in a sentence.
    pub cause: String,
}

impl Timeline {
    /// Keeps what memory holds of these MACs and the store does not hold yet. How many datagrams that were.
    ///
    /// # Errors
    /// The store failed; nothing is lost from memory.
    pub async fn keep_boot(&self, failure: Failure, macs: &[MacAddr]) -> Result<usize, StoreError> {
        let store = self.store().clone();
        let (timeline, macs) = (self.clone(), macs.to_vec());
        // Blobs are files, and wait for the disk.
        let kept = tokio::task::spawn_blocking(move || timeline.keep_boot_blocking(&failure, &macs)).await;
        let (count, gone) = kept.unwrap_or(Err(StoreError::Closed))?;
        for blob in gone {
            if let Err(error) = store.delete_blob(&blob) {
                tracing::warn!(%error, "an old recording could not be deleted");
            }
        }
        Ok(count)
    }

    fn keep_boot_blocking(
        &self,
        failure: &Failure,
        macs: &[MacAddr],
    ) -> Result<(usize, Vec<BlobRef>), StoreError> {
        let store = self.store();
        let (mut tx, mut stored, mut gone) = (store.tx(), Vec::new(), Vec::new());
        for mac in macs {
            let mut known = store.scan(&BOOTS, &format!("{mac}/"))?;
            let number = known.last().map_or(0, |entry| entry.key.1.0 + 1);
            let datagrams = self.datagrams(&[*mac]);
            if datagrams.is_empty() {
                continue;
            }
            let about = about(*mac, failure);
            let section = store.put_blob(&pcapng::section(&datagrams, &about))?;
            let Failure { host, boot, at, cause } = failure.clone();
            let record = FailedBoot { host, boot, at, cause, datagrams: datagrams.len(), section };
            tx.put(&BOOTS, &Pair(mac.to_string(), Ordered(number)), &record)?;
            stored.push((*mac, datagrams.len()));
            while known.len() >= KEEP {
                let old = known.remove(0);
                tx.delete(&BOOTS, &old.key)?;
                gone.push(old.value.section);
            }
        }
        if stored.is_empty() {
            return Ok((0, gone));
        }
        tx.commit_blocking()?;
        for (mac, count) in &stored {
            self.datagrams_stored(*mac, *count);
        }
        let count = stored.iter().map(|(_, count)| count).sum();
        gone.extend(self.make_room_for_boots()?);
        Ok((count, gone))
    }

    /// The oldest boots of all go.
    fn make_room_for_boots(&self) -> Result<Vec<BlobRef>, StoreError> {
        let store = self.store();
        let more = store.count(&BOOTS, "")?.saturating_sub(ALL);
        if more == 0 {
            return Ok(Vec::new());
        }
        let mut all = store.scan(&BOOTS, "")?;
        all.sort_by_key(|entry| entry.value.at);
        let mut tx = store.tx();
        let mut gone = Vec::new();
        for entry in all.into_iter().take(more) {
            tx.delete(&BOOTS, &entry.key)?;
            gone.push(entry.value.section);
        }
        tx.commit_blocking()?;
        Ok(gone)
    }

    /// All datagrams of these MACs as pcapng: of failed boots from the store, then what memory holds beyond. None if there
    /// are none. Blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn pcapng(&self, macs: &[MacAddr]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut file = Vec::new();
        for mac in macs {
            for entry in self.store().scan(&BOOTS, &format!("{mac}/"))? {
                file.extend(self.store().get_blob(&entry.value.section)?);
            }
        }
        let live = self.datagrams(macs);
        if !live.is_empty() {
            let macs: Vec<String> = macs.iter().map(ToString::to_string).collect();
            file.extend(pcapng::section(&live, &format!("datagrams of {}, from memory", macs.join(", "))));
        }
        Ok((!file.is_empty()).then_some(file))
    }
}

fn about(mac: MacAddr, failure: &Failure) -> String {
    let boot = failure.boot.map_or_else(String::new, |boot| format!(", boot {boot}"));
    format!("datagrams of {mac} ({}{boot}), stored at {}: {}", failure.host, failure.at, failure.cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcapng::reader::read;
    use dayzero_model::datagram::{Datagram, Wire};
    use dayzero_store::{Options, Store};

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 1, 1]);
    const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 1, 2]);

    fn capture(timeline: &Timeline, mac: MacAddr, at: u64) {
        let wire =
            Wire::Udp { from: "0.0.0.0:68".parse().unwrap(), to: "255.255.255.255:67".parse().unwrap() };
        let bytes = &at.to_be_bytes();
        let (interface, of_host, sent, length) = ("mgmt0", true, false, 8);
        timeline.capture(&Datagram { at, interface, mac: Some(mac), of_host, sent, wire, bytes, length });
    }

    fn failure(at: u64) -> Failure {
        let host = "host1".parse().unwrap();
        Failure { host, boot: Some(BootId(7)), at: Timestamp(at), cause: format!("boot-timeout {at}") }
    }

    fn times(timeline: &Timeline, macs: &[MacAddr]) -> Vec<u64> {
        let file = timeline.pcapng(macs).unwrap().unwrap_or_default();
        read(&file).packets.iter().map(|packet| packet.at).collect()
    }

    #[tokio::test]
    async fn a_failed_boots_datagrams_survive_a_restart_and_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        let timeline = Timeline::open(&store).unwrap();
        for at in 1..=3 {
            capture(&timeline, MAC, at);
        }
        capture(&timeline, OTHER, 2);
        assert_eq!(timeline.keep_boot(failure(1), &[MAC, OTHER]).await.unwrap(), 4);
        assert_eq!(timeline.keep_boot(failure(2), &[MAC, OTHER]).await.unwrap(), 0, "nothing is new");
        capture(&timeline, MAC, 4);
        assert_eq!(times(&timeline, &[MAC]), [1, 2, 3, 4]);
        let again = Timeline::open(&store).unwrap();
        assert_eq!(times(&again, &[MAC]), [1, 2, 3], "memory is gone, the failed boot is not");
        assert_eq!(times(&again, &[OTHER]), [2]);
        let file = read(&again.pcapng(&[MAC]).unwrap().unwrap());
        let comment = &file.comments[0];
        assert!(comment.contains("host1") && comment.contains("boot-timeout 1"), "{comment}");
        assert_eq!(again.pcapng(&[MacAddr([2; 6])]).unwrap(), None);
    }

    #[tokio::test]
    async fn the_oldest_boots_of_a_mac_go_with_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        let timeline = Timeline::open(&store).unwrap();
        for at in 1..=10 {
            capture(&timeline, MAC, at);
            timeline.keep_boot(failure(at), &[MAC]).await.unwrap();
        }
        assert_eq!(times(&timeline, &[MAC]), [7, 8, 9, 10]);
        assert_eq!((store.count(&BOOTS, "").unwrap(), store.blobs().unwrap().len()), (KEEP, KEEP));
    }
}
