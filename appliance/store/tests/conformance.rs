//! What every engine behind the store must keep: transactions, compare-and-set, order of watches, reopening, export.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says so by failing"
)]

use std::collections::BTreeMap;
use std::path::Path;

use dayzero_model::Timestamp;
use dayzero_store::{Event, Options, Ordered, Pair, Revision, Store, StoreError, Table};
use proptest::prelude::*;

static A: Table<String, String> = Table::new("a");
static B: Table<String, u64> = Table::new("b");
static NUMBERS: Table<Ordered, u8> = Table::new("numbers");
static PAIRS: Table<Pair<String, Ordered>, u8> = Table::new("pairs");

fn clock() -> Timestamp {
    Timestamp(1_790_000_000_000)
}

fn open(dir: &Path) -> Store {
    Store::open(dir, Options { clock, ..Options::default() }).unwrap()
}

fn k(text: &str) -> String {
    text.to_owned()
}

#[test]
fn a_transaction_takes_effect_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut tx = store.tx();
    tx.put(&A, &k("x"), &k("one")).unwrap().put(&B, &k("x"), &1).unwrap();
    let first = tx.commit_blocking().unwrap();
    assert_eq!((first, store.revision()), (Revision(1), Revision(1)));
    let mut tx = store.tx();
    tx.put(&A, &k("x"), &k("two")).unwrap().delete(&B, &k("x")).unwrap();
    tx.expect_absent(&A, &k("x")).unwrap();
    let conflict = tx.commit_blocking().unwrap_err();
    assert!(
        matches!(&conflict, StoreError::Conflict { table, expected: Revision(0), found: Revision(1), .. } if table == "a"),
        "{conflict}"
    );
    assert_eq!(store.get(&A, &k("x")).unwrap(), Some(k("one")));
    assert_eq!(store.get(&B, &k("x")).unwrap(), Some(1));
    let entry = store.entry(&A, &k("x")).unwrap().unwrap();
    assert_eq!((entry.revision, entry.written_at), (first, clock()));
    let mut tx = store.tx();
    tx.expect_revision(&A, &k("x"), entry.revision).unwrap().put(&A, &k("x"), &k("two")).unwrap();
    assert_eq!(tx.commit_blocking().unwrap(), Revision(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_at_once_lose_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..25 {
                while let Err(e) = store.update(&B, &k("n"), |n| Some(n.unwrap_or(0) + 1)).await {
                    assert!(e.is_conflict(), "{e}");
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(store.get(&B, &k("n")).unwrap(), Some(200));
}

#[tokio::test]
async fn a_watch_sees_each_commit_in_order_and_is_told_when_it_missed_some() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch();
    for i in 0..20_u64 {
        let mut tx = store.tx();
        tx.put(&B, &format!("k{i}"), &i).unwrap();
        if i == 3 {
            tx.delete(&A, &k("gone")).unwrap();
        }
        tx.commit().await.unwrap();
    }
    for i in 0..20_u64 {
        let Event::Changed(change) = watch.next().await else { panic!("a commit was expected") };
        assert_eq!(change.revision, Revision(i + 1));
        assert_eq!(change.of(&B).collect::<Vec<_>>(), [format!("k{i}")]);
        assert_eq!(change.touches(&A), i == 3);
        assert_eq!(change.keys.iter().filter(|key| key.deleted).count(), usize::from(i == 3));
    }
    for i in 0..2000_u64 {
        let mut tx = store.tx();
        tx.put(&B, &k("busy"), &i).unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(watch.next().await, Event::Resync);
    store.close().await.unwrap();
    while let Event::Changed(_) = watch.next().await {}
    assert_eq!(watch.next().await, Event::Closed);
    let mut tx = store.tx();
    tx.put(&B, &k("late"), &1).unwrap();
    assert!(matches!(tx.commit().await, Err(StoreError::Closed)));
    assert_eq!(store.get(&B, &k("busy")).unwrap(), Some(1999), "reads still work");
}

#[test]
fn keys_are_ordered_and_pages_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut tx = store.tx();
    for n in [100, 9, 20, 3, 11] {
        tx.put(&NUMBERS, &Ordered(n), &1).unwrap();
        tx.put(&PAIRS, &Pair(k("host1"), Ordered(n)), &1).unwrap();
        tx.put(&PAIRS, &Pair(k("host10"), Ordered(n)), &2).unwrap();
    }
    tx.commit_blocking().unwrap();
    let numbers: Vec<u64> = store.scan(&NUMBERS, "").unwrap().iter().map(|e| e.key.0).collect();
    assert_eq!(numbers, [3, 9, 11, 20, 100]);
    let page = store.page(&NUMBERS, "", Some(&Ordered(9)), 2).unwrap();
    assert_eq!(page.iter().map(|e| e.key.0).collect::<Vec<_>>(), [11, 20]);
    assert_eq!(store.scan(&PAIRS, "host1/").unwrap().iter().map(|e| u64::from(e.value)).sum::<u64>(), 5);
    assert_eq!(store.count(&PAIRS, "").unwrap(), 10);
    assert!(store.page(&NUMBERS, "", None, 0).unwrap().is_empty());
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut tx = store.tx();
    let big = tx.put(&A, &k("x"), &"y".repeat(17 << 10)).err().unwrap();
    assert!(big.to_string().contains("keep it as a blob"), "{big}");
    for bad in ["", "a\0b", &"k".repeat(513)] {
        assert!(matches!(tx.put(&A, &k(bad), &k("v")), Err(StoreError::BadKey { .. })), "{bad:?}");
    }
    let mut full = Ok(());
    for i in 0..200 {
        full = tx.put(&A, &format!("k{i}"), &"y".repeat(15 << 10)).map(|_| ());
        if full.is_err() {
            break;
        }
    }
    assert!(matches!(full, Err(StoreError::TooLarge { .. })));
    drop(tx);
    assert_eq!(store.revision(), Revision::ABSENT);
}

#[test]
fn a_second_opener_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = Store::open(dir.path(), Options::default()).unwrap_err();
    let expected = format!("in use by process {}", std::process::id());
    assert!(second.to_string().contains(&expected), "{second}");
    drop(store);
    open(dir.path());
}

#[test]
fn older_schemas_are_upgraded_and_newer_ones_refused() {
    static OLD: Table<String, u32> = Table::new("t");
    static NEW: Table<String, String> =
        Table::new("t").schema(2, |from, body| Ok(serde_json::json!(format!("from {from}: {body}"))));
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut tx = store.tx();
    tx.put(&OLD, &k("x"), &7).unwrap();
    tx.commit_blocking().unwrap();
    assert_eq!(store.get(&NEW, &k("x")).unwrap(), Some(k("from 1: 7")));
    let mut tx = store.tx();
    tx.put(&NEW, &k("x"), &k("new")).unwrap();
    tx.commit_blocking().unwrap();
    let refused = store.get(&OLD, &k("x")).unwrap_err();
    assert!(refused.to_string().contains("schema 2 by a newer version"), "{refused}");
}

#[test]
fn blobs_are_found_by_content_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = vec![42; 200 << 10];
    let blob = store.put_blob(&content).unwrap();
    assert_eq!(store.put_blob(&content).unwrap(), blob);
    assert_eq!(store.get_blob(&blob).unwrap(), content);
    assert_eq!(store.blobs().unwrap(), [blob]);
    let name = blob.sha256.to_string();
    let path = dir.path().join("blobs").join(&name[..2]).join(&name);
    std::fs::write(&path, b"other").unwrap();
    assert!(matches!(store.get_blob(&blob), Err(StoreError::Corrupt { .. })));
    assert!(store.verify().is_err());
    store.delete_blob(&blob).unwrap();
    store.delete_blob(&blob).unwrap();
    assert!(store.verify().is_ok());
}

#[test]
fn an_export_comes_back_whole_and_into_an_empty_store_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("one"));
    for i in 0..300_u64 {
        let mut tx = store.tx();
        tx.put(&A, &format!("k{i}"), &"v".repeat((i * 50) as usize))
            .unwrap()
            .put(&B, &format!("n{i}"), &i)
            .unwrap();
        tx.commit_blocking().unwrap();
    }
    let (small, large) = (store.put_blob(b"").unwrap(), store.put_blob(&vec![9; 300_000]).unwrap());
    let path = store.export_file().unwrap();
    let copy = open(&dir.path().join("two"));
    let moved = copy.import(std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!((moved.records, moved.blobs), (600, 2));
    let values = |s: &Store| {
        s.scan(&A, "").unwrap().into_iter().map(|e| (e.key, e.value, e.written_at)).collect::<Vec<_>>()
    };
    assert_eq!(values(&copy), values(&store));
    assert_eq!(copy.get_blob(&small).unwrap(), b"");
    assert_eq!(copy.get_blob(&large).unwrap().len(), 300_000);
    let again = copy.import(std::fs::File::open(&path).unwrap()).unwrap_err();
    assert!(matches!(again, StoreError::NotEmpty { records: 600 }), "{again}");
    // Cut anywhere, or changed anywhere: nothing is imported.
    let whole = std::fs::read(&path).unwrap();
    let third = open(&dir.path().join("three"));
    for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
        assert!(third.import(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let mut lines = zstd::decode_all(&whole[..]).unwrap();
    let at = lines.windows(6).position(|w| w == b"\"value").unwrap() + 9;
    lines[at] = b'W';
    let changed = third.import(&zstd::encode_all(&lines[..], 1).unwrap()[..]).unwrap_err();
    assert!(matches!(changed, StoreError::BadImport { .. }), "{changed}");
    assert_eq!(third.verify().unwrap().records, 0);
}

#[test]
fn only_the_newest_exports_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { keep_exports: 2, clock, ..Options::default() }).unwrap();
    let mut last = None;
    for i in 0..4 {
        let mut tx = store.tx();
        tx.put(&B, &k("x"), &i).unwrap();
        tx.commit_blocking().unwrap();
        last = Some(store.export_file().unwrap());
    }
    assert!(last.unwrap().exists());
    assert_eq!(std::fs::read_dir(dir.path().join("exports")).unwrap().count(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Commit,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0_u8..20, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        3 => (0_u8..20).prop_map(Step::Delete),
        4 => Just(Step::Commit),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_store_is_a_map(script in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let (mut model, mut open_model) = (BTreeMap::new(), BTreeMap::new());
        let mut tx = store.tx();
        for step in script {
            match step {
                Step::Put(key, value) => {
                    tx.put(&B, &format!("{key:02}"), &u64::from(value)).unwrap();
                    open_model.insert(format!("{key:02}"), u64::from(value));
                }
                Step::Delete(key) => {
                    tx.delete(&B, &format!("{key:02}")).unwrap();
                    open_model.remove(&format!("{key:02}"));
                }
                Step::Commit => {
                    std::mem::replace(&mut tx, store.tx()).commit_blocking().unwrap();
                    model = open_model.clone();
                }
                Step::Reopen => {
                    drop(tx);
                    drop(store);
                    store = open(dir.path());
                    prop_assert!(store.open_report().clean);
                    open_model = model.clone();
                    tx = store.tx();
                }
            }
            let stored: BTreeMap<String, u64> = store.scan(&B, "").unwrap().into_iter().map(|e| (e.key, e.value)).collect();
            prop_assert_eq!(&stored, &model);
        }
    }
}
