//! Durable puts per second, beside SQLite (WAL, synchronous=FULL) in the same run: `puts [--json] [--rounds N] [--seconds S] [DIR]`.
//!
//! Keys have 16 bytes, values 200; each put is one commit that waits until it is durable. Rounds are interleaved, each on
//! fresh files; the median counts. A writer is a task for the store, as in `serve`, and a thread with its own connection
//! for SQLite, which has no other way.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dayzero_store::{Options, Store, Table};

static PUTS: Table<String, String> = Table::new("puts");

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 27)
}

/// 16 bytes, in random order over the key space.
fn key(writer: u64, n: u64) -> String {
    format!("{:016x}", mix(writer << 40 | n))
}

/// 200 bytes with the quotes of JSON.
fn value(n: u64) -> String {
    format!("{n:0198}")
}

/// Puts per second into the store.
fn store(dir: &Path, writers: u64, span: Duration) -> Result<f64> {
    let store = Store::open(dir, Options::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let begun = Instant::now();
    let total = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let store = store.clone();
            tasks.spawn(async move {
                let mut n = 0;
                while begun.elapsed() < span {
                    let mut tx = store.tx();
                    tx.put(&PUTS, &key(writer, n), &value(n))?;
                    tx.commit().await?;
                    n += 1;
                }
                Ok::<_, dayzero_store::StoreError>(n)
            });
        }
        let mut total = 0;
        while let Some(done) = tasks.join_next().await {
            total += done??;
        }
        Ok::<_, anyhow::Error>(total)
    })?;
    let rate = total as f64 / begun.elapsed().as_secs_f64();
    let held = store.count(&PUTS, "")? as u64;
    if held != total {
        bail!("{total} puts were acknowledged, the store holds {held}");
    }
    Ok(rate)
}

/// Puts per second into SQLite.
fn sqlite(dir: &Path, writers: u64, span: Duration) -> Result<f64> {
    let path = dir.join("puts.sqlite");
    let open = || -> Result<rusqlite::Connection> {
        let connection = rusqlite::Connection::open(&path)?;
        connection.busy_timeout(Duration::from_secs(60))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection)
    };
    open()?.execute("CREATE TABLE puts (k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID", [])?;
    let begun = Instant::now();
    let total: u64 = std::thread::scope(|scope| {
        let write = |writer| {
            move || -> Result<u64> {
                let connection = open()?;
                let mut put = connection.prepare("INSERT OR REPLACE INTO puts VALUES (?, ?)")?;
                let mut n = 0;
                while begun.elapsed() < span {
                    put.execute((key(writer, n), value(n)))?;
                    n += 1;
                }
                Ok(n)
            }
        };
        let threads: Vec<_> = (0..writers).map(|writer| scope.spawn(write(writer))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("a writer died"))).sum::<Result<u64>>()
    })?;
    Ok(total as f64 / begun.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> Result<()> {
    let (mut json, mut rounds, mut seconds, mut dir) = (false, 5, 2.0, std::env::temp_dir());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number =
            || arguments.next().context("a number must follow")?.parse::<f64>().context("no number");
        match argument.as_str() {
            "--json" => json = true,
            "--rounds" => rounds = number()? as usize,
            "--seconds" => seconds = number()?,
            path => dir = path.into(),
        }
    }
    let span = Duration::from_secs_f64(seconds);
    let mut out = std::io::stdout().lock();
    for (name, writers) in [("store.puts", 32), ("store.puts.w1", 1)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            let fresh = tempfile::tempdir_in(&dir)?;
            ours.push(store(&fresh.path().join("store"), writers, span)?);
            theirs.push(sqlite(fresh.path(), writers, span)?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        if json {
            let line = serde_json::json!({
                "name": name, "writers": writers, "store_per_s": ours.round(), "sqlite_per_s": theirs.round(),
                "ratio": (ours / theirs * 100.0).round() / 100.0,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{name:14} {ours:9.0}/s   SQLite {theirs:9.0}/s   {:.1} x", ours / theirs)?;
        }
    }
    Ok(())
}
