//! The soak: ten million datagrams, most of them broken, then a thousand transfers at once, twice. Memory of `dayzero
//! serve` after the second half, less that after the first: what grows with use would show. What comes from the network is no
//! error of ours: a line in the log that says so ends it.

use super::Bench;
use super::net::{Wire, as_client, inside};
use super::ours::SMALL;
use super::tftp_client::{Ask, storm};
use crate::bench::row::Row;
use crate::paths;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Datagrams that the server must have read, in each half.
const HALF: u64 = 5_000_000;
/// Datagrams that may be on their way: they fit into the server's buffers, so that none is lost unread.
const AHEAD: u64 = 1500;
/// Sockets that they are sent from, each of another address.
const SENDERS: usize = 64;
/// Growth that is no leak: the allocator's own unevenness, MiB.
const MOST: f64 = 4.0;

/// The row.
pub fn rows(bench: &mut Bench) {
    bench.attempt("pxe.soak", |bench| {
        let mut rss = Vec::new();
        for half in 0..2 {
            let (wire, server) = (bench.wire("ours")?, bench.server("ours")?);
            pelt(wire, half)?;
            let sources: Vec<_> = (0..1000).map(|n| wire.client(n)).collect();
            let ask = Ask { server: wire.server, file: SMALL, block: 1468, window: 4 };
            let result = as_client(|| storm(&ask, &sources))?;
            ensure!(result.failed == 0, "{} of 1,000 transfers failed after the datagrams", result.failed);
            let said = server.said();
            let error = said.lines().find(|line| line.contains(" ERROR "));
            ensure!(error.is_none(), "our own fault, told in the soak: {}", error.unwrap_or_default());
            rss.push(server.rss_mib()?);
            bench.say(&format!("pxe.soak: {:.1} MiB after {} datagrams", rss[half as usize], (half + 1) * HALF));
        }
        let growth = rss[1] - rss[0];
        bench.push(Row {
            id: "pxe.soak".to_owned(),
            what: format!(
                "growth of memory from {HALF} to {} datagrams, TFTP, DHCP and DNS, most of them malformed, and 1,000 \
                 transfers after each half; {:.1} MiB at the end",
                2 * HALF,
                rss[1]
            ),
            unit: "MiB".to_owned(),
            ours: growth,
            peer: None,
            peer_value: None,
            ratio: None,
            ask: Some(format!("at most {MOST} MiB")),
            held: Some(growth <= MOST),
            runs: vec![growth],
            peers: BTreeMap::new(),
        });
        Ok(())
    });
}

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

/// Sends until the server has read [`HALF`] datagrams.
fn pelt(wire: &Wire, half: u64) -> Result<()> {
    let seeds = seeds(wire)?;
    let (read, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let first = inside(&wire.namespace, received)?;
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            inside(&wire.namespace, || {
                while !done.load(Ordering::SeqCst) {
                    read.store(received()? - first, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            })
        });
        let sent = as_client(|| send(wire, &seeds, half, &read));
        done.store(true, Ordering::SeqCst);
        watching.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
        sent
    })
}

fn send(wire: &Wire, seeds: &[(u16, Vec<u8>)], half: u64, read: &AtomicU64) -> Result<()> {
    let socket = |n: usize| UdpSocket::bind((wire.client(2000 + n), 0)).context("a socket to pelt from");
    let mut sockets: Vec<UdpSocket> = (0..SENDERS).map(socket).collect::<Result<_>>()?;
    sockets.push(UdpSocket::bind((wire.relay(), 0)).context("a socket of the relay")?);
    let mut numbers = Numbers(half + 1);
    let (mut sent, mut stuck) = (0u64, 0);
    while read.load(Ordering::SeqCst) < HALF {
        if sent > read.load(Ordering::SeqCst) + AHEAD {
            std::thread::sleep(Duration::from_micros(200));
            stuck += 1;
            if stuck > 500 {
                // What was lost on the way is not waited for.
                sent = read.load(Ordering::SeqCst);
            }
            continue;
        }
        stuck = 0;
        let (port, seed) = &seeds[numbers.below(seeds.len())];
        let mut bytes = seed.clone();
        if *port == 67 {
            // Of more machines than are remembered, so that each table is full after the first half.
            bytes[MAC] = numbers.below(128) as u8;
            bytes[MAC + 1] = numbers.below(256) as u8;
        }
        for _ in 0..numbers.below(4) {
            let at = numbers.below(bytes.len());
            match numbers.below(3) {
                0 => bytes[at] = numbers.below(256) as u8,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, numbers.below(256) as u8),
            }
        }
        let socket = &sockets[numbers.below(sockets.len())];
        // A reply to a closed port is told here; it is nothing to us.
        let _ = socket.send_to(&bytes, (wire.server, *port));
        sent += 1;
    }
    Ok(())
}

/// What is sent before it is broken, each with its port: TFTP requests and DNS questions of real and hostile clients, and
/// every DHCP message that a client or a relay sends, as many again as there are of both.
fn seeds(wire: &Wire) -> Result<Vec<(u16, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for (target, port) in [("tftp", 69), ("dns", 53)] {
        let dir = paths::root().join("pxe/fuzz/seeds").join(target);
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            seeds.push((port, fs::read(entry?.path())?));
        }
    }
    let messages = seeds.len();
    for n in 0..messages.max(KINDS.len() * 4) {
        let kind = KINDS[n % KINDS.len()];
        let relay = (n / KINDS.len() % 2 == 1).then(|| wire.relay());
        seeds.push((67, message(kind, relay, wire)));
    }
    Ok(seeds)
}

const REQUEST: u8 = 3;
/// DISCOVER, REQUEST, DECLINE, RELEASE, INFORM.
const KINDS: [u8; 5] = [1, REQUEST, 4, 7, 8];
/// Where a DHCP message has the last octets of its client's MAC, which [`send`] gives each one anew.
const MAC: usize = 32;

fn message(kind: u8, relay: Option<Ipv4Addr>, wire: &Wire) -> Vec<u8> {
    let mut out = vec![1, 1, 6, 0];
    out.resize(236, 0);
    let pool = wire.client(0).octets();
    if matches!(kind, 7 | 8) {
        out[12..16].copy_from_slice(&pool);
    }
    if let Some(relay) = relay {
        out[24..28].copy_from_slice(&relay.octets());
    }
    out[28..34].copy_from_slice(&[2, 0, 0, 0x50, 0xa4, 1]);
    out.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, kind, 60, 9]);
    out.extend_from_slice(b"PXEClient");
    if matches!(kind, REQUEST | 4) {
        out.extend_from_slice(&[50, 4]);
        out.extend_from_slice(&pool);
    }
    if kind != 1 {
        out.extend_from_slice(&[54, 4]);
        out.extend_from_slice(&wire.server.octets());
    }
    out.extend_from_slice(&[93, 2, 0, 7, 55, 4, 1, 3, 66, 67, 255]);
    out
}

/// UDP datagrams that were read by programs of this thread's namespace so far.
fn received() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let line = text.lines().filter(|line| line.starts_with("Udp:")).nth(1).context("no Udp line in snmp")?;
    line.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok()).context("InDatagrams")
}
