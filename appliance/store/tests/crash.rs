//! The store after SIGKILL, after torn and damaged files: every acknowledged commit is there, whole, or the start is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says so by failing"
)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use dayzero_store::{Options, Ordered, Store, StoreError, Table};

static LEFT: Table<Ordered, String> = Table::new("left");
static RIGHT: Table<Ordered, String> = Table::new("right");
static LAST: Table<String, u64> = Table::new("last");
const WRITER: &str = "DAYZERO_STORE_TEST_WRITER";

fn open(dir: &Path) -> Store {
    Store::open(dir, Options::default()).unwrap()
}

/// Not a test by itself: the process that the tests below start and kill. It prints each number after its commit.
#[test]
fn writer_child() {
    let Some(dir) = std::env::var_os(WRITER) else { return };
    let store = open(Path::new(&dir));
    let mut n = store.get(&LAST, &"n".to_owned()).unwrap().unwrap_or(0);
    loop {
        n += 1;
        commit(&store, n);
        println!("acked {n}");
    }
}

fn commit(store: &Store, n: u64) {
    let body = format!("{n} {}", "x".repeat(usize::try_from(n % 97).unwrap() * 100));
    let mut tx = store.tx();
    // Keys come again, so that values are replaced and both layers hold the same key.
    tx.put(&LEFT, &Ordered(n % 701), &body).unwrap().put(&RIGHT, &Ordered(n % 701), &body).unwrap();
    tx.delete(&LEFT, &Ordered((n + 300) % 701)).unwrap().delete(&RIGHT, &Ordered((n + 300) % 701)).unwrap();
    tx.put(&LAST, &"n".to_owned(), &n).unwrap();
    tx.commit_blocking().unwrap();
}

/// What the store must hold after exactly `n` commits.
fn check(store: &Store, acked: u64) -> u64 {
    store.verify().unwrap();
    let n = store.get(&LAST, &"n".to_owned()).unwrap().unwrap_or(0);
    assert!(n >= acked, "commit {acked} was acknowledged, the store holds {n}");
    let records =
        |table| store.scan(table, "").unwrap().into_iter().map(|e| (e.key, e.value)).collect::<Vec<_>>();
    let (left, right) = (records(&LEFT), records(&RIGHT));
    assert!(left == right, "tables differ: a commit was applied in part");
    let mut expected: Vec<u64> = (n.saturating_sub(400)..=n).filter(|i| *i > 0).map(|i| i % 701).collect();
    expected.sort_unstable();
    assert_eq!(left.iter().map(|(key, _)| key.0).collect::<Vec<_>>(), expected, "after {n}");
    for (key, value) in &left {
        let written: u64 = value.split(' ').next().unwrap().parse().unwrap();
        assert!(
            written % 701 == key.0 && written + 400 >= n && written <= n,
            "{key} holds {written} after {n}"
        );
    }
    n
}

#[test]
fn no_acknowledged_commit_is_lost_when_the_writer_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut seen_replay = false;
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer_child", "--exact", "--nocapture"])
            .env(WRITER, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let kill_after = 1 + (seed >> 33) % 900;
        let mut acked = 0;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..kill_after {
            let line =
                lines.by_ref().map(Result::unwrap).find_map(|l| l.strip_prefix("acked ").map(str::to_owned));
            acked = line.expect("the writer ended by itself").parse().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // It may have acknowledged more before the signal came.
        for line in lines.map_while(Result::ok) {
            acked = line.strip_prefix("acked ").and_then(|n| n.parse().ok()).unwrap_or(acked);
        }
        let store = open(dir.path());
        let report = store.open_report();
        assert!(!report.clean, "round {round}");
        seen_replay |= report.replayed > 0;
        check(&store, acked);
    }
    assert!(seen_replay, "the log was never needed: the test does not test it");
}

/// A copy of the directory while the store is open is what a crash at that moment leaves.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn commits_survive_the_loss_of_all_that_the_engine_had_not_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (live, crashed) = (dir.path().join("live"), dir.path().join("crashed"));
    let store = open(&live);
    copy(&live.join("sled"), &crashed.join("sled"));
    for n in 1..=200 {
        commit(&store, n);
    }
    // The engine's files as they were before all commits, the log as it is now.
    for name in ["commit.0.log", "commit.1.log"] {
        fs::copy(live.join(name), crashed.join(name)).unwrap();
    }
    drop(store);
    let store = open(&crashed);
    assert_eq!(store.open_report().replayed, 1000);
    assert_eq!(check(&store, 200), 200);
}

#[test]
fn records_that_the_engine_lost_are_found_out_and_the_newest_export_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (live, crashed) = (dir.path().join("live"), dir.path().join("crashed"));
    drop(open(&live));
    copy(&live.join("sled"), &crashed.join("sled"));
    let store = open(&live);
    for n in 1..=200 {
        commit(&store, n);
    }
    let export = store.export_file().unwrap();
    drop(store); // All is in the engine now.
    let store = open(&live);
    commit(&store, 201);
    // An engine that forgot what it had synced, under a log that knows better.
    for name in ["commit.0.log", "commit.1.log"] {
        fs::copy(live.join(name), crashed.join(name)).unwrap();
    }
    fs::create_dir(crashed.join("exports")).unwrap();
    fs::copy(&export, crashed.join("exports").join(export.file_name().unwrap())).unwrap();
    let refused = Store::open(&crashed, Options::default()).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("records with digest") && text.contains("exports/") && text.contains("jsonl.zst"),
        "{text}"
    );
    // The export that it names helps.
    let restored = open(&dir.path().join("restored"));
    restored.import(File::open(&export).unwrap()).unwrap();
    assert_eq!(check(&restored, 200), 200);
}

#[test]
fn a_changed_byte_in_the_engine_or_in_the_log_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = open(&live);
    for n in 1..=120 {
        commit(&store, n);
    }
    drop(store);
    let store = open(&live);
    for n in 121..=150 {
        commit(&store, n);
    }
    let snapshot = dir.path().join("snapshot");
    copy(&live, &snapshot);
    drop(store);
    let mut refused = 0;
    for (file, marker) in
        [("sled/db", &b"xxxxxxxx"[..]), ("commit.0.log", b"xxxxxxxx"), ("commit.1.log", b"xxxxxxxx")]
    {
        let bad = dir.path().join("bad");
        copy(&snapshot, &bad);
        let content = fs::read(bad.join(file)).unwrap();
        let places: Vec<usize> =
            content.windows(8).enumerate().filter(|(_, w)| *w == marker).map(|(i, _)| i).collect();
        if let Some(at) = places.get(places.len() / 2) {
            let opened = File::options().write(true).open(bad.join(file)).unwrap();
            opened.write_all_at(b"y", *at as u64).unwrap();
            drop(opened);
            match Store::open(&bad, Options::default()) {
                Err(StoreError::Corrupt { .. }) => refused += 1,
                Err(other) => panic!("{file}: {other}"),
                // The byte was in a value that had been replaced: then all is as it should be.
                Ok(store) => assert_eq!(check(&store, 150), 150, "{file}"),
            }
        }
        fs::remove_dir_all(&bad).unwrap();
    }
    assert!(refused >= 1, "no damage was found");
}
