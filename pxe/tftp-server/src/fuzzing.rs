//! A door for the fuzz target: a request as the network would bring it, and what its client sends afterwards.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::grant::{Denial, Granted, Source, weigh};
use crate::negotiate::{Caps, negotiate};
use crate::packet::{self, DATA_HEADER, Incoming, parse_incoming, parse_request};
use crate::patience::Patience;
use crate::server::{Lookup, Request};
use crate::table::{Most, Table};
use crate::transfer::{Outcome, Send, Step, Transfer};

/// First octet of four that are no packet but time: the other three are milliseconds.
const TIME: u8 = 0xff;
/// Longest error packet that we send.
const LONGEST_ERROR: usize = 128;

/// A datagram at the listening port: a request, and after it, four octets each, what its client sends to the transfer's
/// port, or the time that passes.
///
/// # Panics
/// If what is sent is not what RFC 1350, 2347 and 7440 allow, or a client gets more than it should.
pub fn conversation(datagram: &[u8]) {
    let _ = parse_incoming(datagram);
    let table = Table::new(Most { total: 4, strangers: 2, per_client: 2 });
    // The longest beginning that is a request.
    let zeros = (2..datagram.len().min(packet::MAX_REQUEST)).rev().filter(|end| datagram[end - 1] == 0);
    let reads = |end: &usize| matches!(parse_request(&datagram[..*end]), Ok(Some(_)));
    let end = std::iter::once(datagram.len()).chain(zeros).find(reads).unwrap_or(datagram.len());
    let (request, rest) = datagram.split_at(end);
    for expected in [false, true] {
        let peer = SocketAddr::from(([10, 77, 0, 11], 2070 + u16::from(expected)));
        let Some(granted) = judged(request, peer, expected, &table) else { continue };
        // The same again, while it runs, is the network's doing.
        assert!(matches!(ask(request, peer, expected, &table), Err(Denial::Silent)));
        play(&granted, rest);
    }
    let free: Vec<_> =
        (1..=4).map(|port| table.admit(SocketAddr::from(([10, 0, 0, port], 1)), true)).collect();
    assert!(free.iter().all(Result::is_ok), "every place came back");
}

fn ask(datagram: &[u8], peer: SocketAddr, expected: bool, table: &Arc<Table>) -> Result<Granted, Denial> {
    let local = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
    let iface: Arc<str> = "mgmt0".into();
    let lookup = |request: &Request| {
        assert!(
            !request.name.is_empty() && request.name.split('/').all(|part| !matches!(part, "" | "." | ".."))
        );
        match request.name.as_bytes()[0] {
            b'n' => Lookup::NotFound,
            b'd' => Lookup::Denied("no open boot window".to_owned()),
            _ if expected => Lookup::Expected(Bytes::from_static(&[7; 4000])),
            _ => Lookup::File(Bytes::from_static(&[7; 4000])),
        }
    };
    weigh(
        datagram,
        Source { peer, local, iface: &iface },
        &mut String::new(),
        lookup,
        &Caps::default(),
        table,
    )
}

fn judged(datagram: &[u8], peer: SocketAddr, expected: bool, table: &Arc<Table>) -> Option<Granted> {
    match ask(datagram, peer, expected, table) {
        Ok(granted) => {
            assert!(granted.request.options.len() <= packet::MAX_OPTIONS && granted.expected == expected);
            Some(granted)
        }
        Err(Denial::Refused(refusal)) => {
            let answer = packet::error_packet(refusal.code.wire(), &refusal.message);
            assert!(answer.len() <= LONGEST_ERROR, "{} bytes of error", answer.len());
            None
        }
        Err(Denial::Silent | Denial::Busy) => None,
    }
}

/// What one client got so far.
#[derive(Default)]
struct Got {
    /// Packets and bytes before it acknowledged anything.
    before: (u32, usize),
    heard: bool,
}

fn play(granted: &Granted, chunks: &[u8]) {
    let Ok(terms) = negotiate(&granted.request, granted.file.len() as u64, &Caps::default()) else { return };
    assert!((8..=65464).contains(&terms.block) && terms.window >= 1);
    let patience = if granted.expected { Patience::EXPECTED } else { Patience::STRANGER };
    let (window, block) = (u64::from(terms.window), usize::from(terms.block));
    let start = Instant::now();
    let (mut now, mut got) = (start, Got::default());
    let (mut transfer, step) = Transfer::start(granted.file.clone(), terms, patience, now);
    let mut over = look(&transfer, &step, window, block, &mut got);
    for chunk in chunks.chunks(4) {
        if over {
            return;
        }
        let step = if let [TIME, ms @ ..] = chunk {
            let ms = ms.iter().fold(0, |ms, octet| ms << 8 | u64::from(*octet));
            now += Duration::from_millis(ms);
            transfer.tick(now)
        } else {
            let (acked, incoming) = (transfer.acked(), parse_incoming(chunk));
            let repeated = incoming == Incoming::Ack((acked & 0xffff) as u16) && acked > 0;
            let step = transfer.handle(incoming, now);
            got.heard |= step.send.is_some();
            assert!(!repeated || step == Step::default(), "a repeated acknowledgement does nothing");
            step
        };
        over = look(&transfer, &step, window, block, &mut got);
    }
    // From here on the client is silent: it ends, soon and after few packets.
    let silent = now;
    for _ in 0..64 {
        if over {
            let longest = patience.give_up.max(patience.first) + Duration::from_secs(6);
            assert!(now.duration_since(silent) <= longest, "it held its place too long");
            return;
        }
        let before = now;
        now = transfer.deadline().max(now);
        let step = transfer.tick(now);
        assert!(step.outcome.is_some() || transfer.deadline() > before, "time goes on");
        over = look(&transfer, &step, window, block, &mut got);
    }
    assert!(over, "it never ended");
}

/// Judges a step; whether the transfer is over.
fn look(transfer: &Transfer, step: &Step, window: u64, block: usize, got: &mut Got) -> bool {
    let bytes = match step.send {
        None => 0,
        Some(Send::Oack) => transfer.oack().len(),
        Some(Send::Blocks { first, last }) => {
            assert!(first <= last && last - first < window, "{first} to {last}, window {window}");
            let mut packets = Vec::new();
            transfer.packets(first, last, &mut packets);
            assert!(packets.iter().all(|(_, data)| data.len() <= block));
            packets.iter().map(|(_, data)| data.len() + DATA_HEADER).sum()
        }
    };
    if !got.heard && step.send.is_some() {
        got.before = (got.before.0 + 1, got.before.1 + bytes);
        let (times, bytes) = got.before;
        assert!(times <= 6 && bytes <= 5 * (512 + DATA_HEADER), "{times} packets, {bytes} bytes to whom?");
    }
    match step.outcome {
        Some(Outcome::Completed) => assert_eq!(transfer.acked_bytes(), 4000),
        Some(_) => {}
        None => return false,
    }
    true
}
