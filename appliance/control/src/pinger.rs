//! Numbered pings every 10 ms over a raw ICMP socket (RFC 792), on a thread of their own, judged by our clock.

use crate::world::{PingRun, PingStats, Pings};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(10);
/// Longest wait for an answer before the next look at the clock.
const WAIT: Duration = Duration::from_millis(2);

/// The real pings.
pub(crate) struct IcmpPings;

struct Counts {
    from: Instant,
    last: Instant,
    sent: u64,
    back: u64,
    longest: Duration,
}

impl Counts {
    fn new() -> Self {
        let now = Instant::now();
        Self { from: now, last: now, sent: 0, back: 0, longest: Duration::ZERO }
    }
}

struct Shared {
    counts: Mutex<Counts>,
    stop: AtomicBool,
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Run(Arc<Shared>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl PingRun for Run {
    fn stats(&self) -> PingStats {
        let counts = self.0.counts();
        let silent = counts.last.elapsed();
        PingStats { sent: counts.sent, back: counts.back, longest: counts.longest.max(silent), silent }
    }

    fn reset(&self) {
        *self.0.counts() = Counts::new();
    }
}

impl Pings for IcmpPings {
    fn start(&self, address: Ipv4Addr) -> Result<Box<dyn PingRun>, String> {
        let socket =
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).map_err(|e| e.to_string())?;
        socket.set_read_timeout(Some(WAIT)).map_err(|e| e.to_string())?;
        let shared = Arc::new(Shared { counts: Mutex::new(Counts::new()), stop: AtomicBool::new(false) });
        let ours = shared.clone();
        std::thread::Builder::new()
            .name("pinger".to_owned())
            .spawn(move || run(socket, address, &ours))
            .map_err(|e| e.to_string())?;
        Ok(Box::new(Run(shared)))
    }
}

fn run(mut socket: Socket, address: Ipv4Addr, shared: &Shared) {
    let token: [u8; 8] = rand::random();
    let to = SockAddr::from(SocketAddrV4::new(address, 0));
    let (mut number, mut next) = (0_u64, Instant::now());
    let mut buffer = [0_u8; 1500];
    while !shared.stop.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            number += 1;
            // An error (no route just now) is a lost ping.
            let _ = socket.send_to(&request(&token, number), &to);
            shared.counts().sent += 1;
            next = (next + EVERY).max(Instant::now());
        }
        let Ok(length) = socket.read(&mut buffer) else { continue };
        let Some(_) = answered(&buffer[..length], &token, address) else { continue };
        let now = Instant::now();
        let mut counts = shared.counts();
        let since = now.saturating_duration_since(counts.last.max(counts.from));
        counts.longest = counts.longest.max(since);
        counts.last = now;
        counts.back += 1;
    }
}

/// Echo request: type 8, our token and the number as data.
fn request(token: &[u8; 8], number: u64) -> [u8; 24] {
    let mut packet = [0_u8; 24];
    packet[0] = 8;
    packet[4..6].copy_from_slice(&token[..2]);
    packet[6..8].copy_from_slice(&number.to_be_bytes()[6..]);
    packet[8..16].copy_from_slice(token);
    packet[16..].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}

/// Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The number in an echo reply to us, from an IPv4 packet.
fn answered(packet: &[u8], token: &[u8; 8], from: Ipv4Addr) -> Option<u64> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let icmp = packet.get(header..)?;
    if Ipv4Addr::from(source) != from || icmp.first() != Some(&0) || icmp.get(8..16)? != token {
        return None;
    }
    Some(u64::from_be_bytes(icmp.get(16..24)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_known_by_sender_and_token() {
        let token = [9; 8];
        let mut packet = vec![0x45_u8; 1];
        packet.resize(20, 0);
        packet[12..16].copy_from_slice(&[10, 77, 0, 11]);
        let mut icmp = request(&token, 70_000);
        assert_eq!(checksum(&icmp), 0, "the checksum of a packet with its checksum is zero");
        icmp[0] = 0;
        packet.extend_from_slice(&icmp);
        let host = Ipv4Addr::new(10, 77, 0, 11);
        assert_eq!(answered(&packet, &token, host), Some(70_000));
        assert_eq!(answered(&packet, &[8; 8], host), None);
        assert_eq!(answered(&packet, &token, Ipv4Addr::new(10, 77, 0, 12)), None);
        for cut in 0..packet.len() {
            assert_eq!(answered(&packet[..cut], &token, host), None);
        }
    }

    #[test]
    fn loopback_answers_and_a_reset_counts_anew() {
        let Ok(run) = IcmpPings.start(Ipv4Addr::LOCALHOST) else { return };
        let until = Instant::now() + Duration::from_secs(20);
        while run.stats().back < 20 {
            assert!(Instant::now() < until, "{:?}", run.stats());
            std::thread::yield_now();
        }
        run.reset();
        assert!(run.stats().back < 20);
    }
}
