//! The TFTP rows.

use super::Bench;
use super::net::as_client;
use super::ours::{LOADER, SMALL};
use super::tftp_client::{Ask, fetch, storm};
use crate::bench::row::{About, Ask as Wanted, RUNS, compare};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Write;
use std::time::Instant;

/// A run repeats its transfer until it has taken so long.
const LONG_ENOUGH: f64 = 0.6;
/// Clients of the storm.
const CLIENTS: usize = 1000;
/// All that wait in the kernel for one server are well below this.
const LOSS_PER_THOUSAND: u32 = 10;

/// Each server's runs: value by value.
struct Runs {
    speed: Vec<f64>,
    cpu: Vec<f64>,
    failed: usize,
}

/// Measures what `only` asks for.
pub fn rows(bench: &mut Bench) {
    for (id, window) in [("tftp.window4", 4), ("tftp.window64", 64), ("tftp.window1", 1)] {
        bench.attempt(id, |bench| single(bench, id, window));
    }
    bench.attempt("tftp.clients1000", clients);
    for (id, window) in [("tftp.loss", 1), ("tftp.loss.window4", 4)] {
        bench.attempt(id, |bench| loss(bench, id, window));
    }
}

const PEERS: [&str; 3] = ["tftpd-hpa", "atftpd", "dnsmasq"];

/// Ours and the peers in turn, `RUNS` times.
fn interleave(
    bench: &Bench,
    peers: &[&str],
    mut one: impl FnMut(&Bench, &str) -> Result<(f64, f64, usize)>,
) -> Result<Vec<(String, Runs)>> {
    let mut all: Vec<(String, Runs)> = std::iter::once("ours")
        .chain(peers.iter().copied())
        .map(|name| (name.to_owned(), Runs { speed: Vec::new(), cpu: Vec::new(), failed: 0 }))
        .collect();
    for _ in 0..RUNS {
        for (name, runs) in &mut all {
            let (speed, cpu, failed) = one(bench, name).with_context(|| name.clone())?;
            runs.speed.push(speed);
            runs.cpu.push(cpu);
            runs.failed += failed;
        }
    }
    Ok(all)
}

fn pick(all: &[(String, Runs)], of: impl Fn(&Runs) -> &Vec<f64>) -> (Vec<f64>, Vec<(String, Vec<f64>)>) {
    let mut values = all.iter().map(|(name, runs)| (name.clone(), of(runs).clone()));
    let ours = values.next().map(|(_, runs)| runs).unwrap_or_default();
    (ours, values.collect())
}

/// One client, again and again: MB/s, and CPU seconds of the server per GB.
fn single(bench: &mut Bench, id: &'static str, window: u16) -> Result<()> {
    let block = if window == 1 { 1432 } else { 1468 };
    let whole = bench.files.read(LOADER)?;
    for name in std::iter::once("ours").chain(PEERS) {
        let wire = bench.wire(name)?;
        let ask = Ask { server: wire.server, file: LOADER, block, window };
        let mut got = Vec::new();
        as_client(|| fetch(&ask, wire.client(0), Some(&mut got))).with_context(|| name.to_owned())?;
        ensure!(got == whole, "{name} sent other bytes than the file's");
    }
    let all = interleave(bench, &PEERS, |bench, name| repeated(bench, name, block, window))?;
    let what = format!("one client, blksize {block}, windowsize {window}, 64 MiB");
    let wanted = match window {
        1 => 1.15,
        4 => 2.0,
        _ => 3.0,
    };
    let (ours, peers) = pick(&all, |runs| &runs.speed);
    let about = About { id, what: what.clone(), unit: "MB/s" };
    bench.push(compare(about, &ours, &peers, Wanted::AtLeast(wanted), true)?);
    if window == 1 {
        let (ours, peers) = pick(&all, |runs| &runs.cpu);
        let about = About { id: "tftp.window1.cpu", what: format!("{what}: server CPU"), unit: "s/GB" };
        bench.push(compare(about, &ours, &peers, Wanted::AtMost(0.8), true)?);
    }
    let awake = match window {
        1 => "tftp.window1.awake",
        4 => "tftp.window4.awake",
        _ => return Ok(()),
    };
    // What is left of the ratio where no server gains by keeping processors from sleep.
    let Some(_awake) = Awake::hold() else { return Ok(()) };
    let all = interleave(bench, &PEERS, |bench, name| repeated(bench, name, block, window))?;
    let (ours, peers) = pick(&all, |runs| &runs.speed);
    let about =
        About { id: awake, what: format!("{what}: the bench keeps processors awake for all"), unit: "MB/s" };
    bench.push(compare(about, &ours, &peers, Wanted::AtLeast(wanted), true)?.unasked());
    Ok(())
}

/// One client fetches again and again: MB/s, and CPU seconds of the server per GB.
fn repeated(bench: &Bench, name: &str, block: u16, window: u16) -> Result<(f64, f64, usize)> {
    let (wire, server) = (bench.wire(name)?, bench.server(name)?);
    let ask = Ask { server: wire.server, file: LOADER, block, window };
    let (before, begin) = (server.cpu()?, Instant::now());
    let bytes = as_client(|| {
        let mut bytes = 0;
        while begin.elapsed().as_secs_f64() < LONG_ENOUGH {
            bytes += fetch(&ask, wire.client(0), None)?;
        }
        Ok(bytes)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok((bytes as f64 / 1e6 / seconds, (server.cpu()? - before) / (bytes as f64 / 1e9), 0))
}

/// Linux's request that no processor sleeps, for as long as it is open.
struct Awake {
    _device: File,
}

impl Awake {
    fn hold() -> Option<Self> {
        let mut device = File::options().write(true).open("/dev/cpu_dma_latency").ok()?;
        device.write_all(&0_i32.to_ne_bytes()).ok()?;
        Some(Self { _device: device })
    }
}

/// A thousand clients at once.
fn clients(bench: &mut Bench) -> Result<()> {
    let all = interleave(bench, &["atftpd", "dnsmasq"], |bench, name| {
        let (wire, server) = (bench.wire(name)?, bench.server(name)?);
        let sources: Vec<_> = (0..CLIENTS).map(|n| wire.client(n)).collect();
        let ask = Ask { server: wire.server, file: SMALL, block: 1468, window: 4 };
        let before = server.cpu()?;
        let storm = as_client(|| storm(&ask, &sources))?;
        let cpu = (server.cpu()? - before) / (storm.bytes as f64 / 1e9);
        bench.say(&format!(
            "tftp.clients1000 {name}: {:.2} s, {} failed, {} repeated, {cpu:.2} CPU s/GB",
            storm.seconds, storm.failed, storm.repeats
        ));
        Ok((storm.bytes as f64 / f64::from(1 << 20) / storm.seconds, cpu, storm.failed))
    })?;
    let failed: Vec<String> = all.iter().map(|(name, runs)| format!("{name} {}", runs.failed)).collect();
    let (ours, peers) = pick(&all, |runs| &runs.speed);
    let what = format!(
        "{CLIENTS} clients at once x 1 MiB, 1468, window 4; failed in {RUNS} runs: {}",
        failed.join(", ")
    );
    let about = About { id: "tftp.clients1000", what, unit: "MiB/s" };
    let flawless = all.first().is_some_and(|(_, ours)| ours.failed == 0);
    bench.push(compare(about, &ours, &peers, Wanted::AtLeast(1.2), flawless)?);
    Ok(())
}

/// One client while one packet of a hundred is lost in each direction.
fn loss(bench: &mut Bench, id: &'static str, window: u16) -> Result<()> {
    let peers: &[&str] = if window == 1 { &PEERS } else { &["atftpd"] };
    let all = interleave(bench, peers, |bench, name| {
        let (wire, server) = (bench.wire(name)?, bench.server(name)?);
        let ask = Ask { server: wire.server, file: SMALL, block: 1468, window };
        let _loss = wire.lossy(LOSS_PER_THOUSAND)?;
        // Ours is over in a moment: more transfers, so that as many losses count.
        let times = if name == "ours" { 8 } else { 1 };
        let (before, begin) = (server.cpu()?, Instant::now());
        let bytes = as_client(|| (0..times).map(|_| fetch(&ask, wire.client(0), None)).sum::<Result<u64>>())?;
        let seconds = begin.elapsed().as_secs_f64();
        Ok((bytes as f64 / 1e6 / seconds, (server.cpu()? - before) / (bytes as f64 / 1e9), 0))
    })?;
    let (ours, peers) = pick(&all, |runs| &runs.speed);
    let what = format!("one client, 1 MiB, 1468, window {window}, 1 % loss in each direction");
    bench.push(compare(About { id, what, unit: "MB/s" }, &ours, &peers, Wanted::AtLeast(10.0), true)?);
    Ok(())
}
