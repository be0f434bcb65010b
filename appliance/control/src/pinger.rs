//! Numbered pings every 10 ms over a raw ICMP socket (RFC 792), on a thread of their own, judged by our clock.
//!
//! They go out as [`FLOWS`] flows, since one flow may never use the leg that is pulled: a bond picks the leg by a hash over
//! the flow. Chosen: one ICMP identifier a flow. Linux, whose agent answers here, hashes the identifier of an echo in place
//! of the ports under `layer3+4` (drivers/net/bonding/bond_main.c, `__bond_xmit_hash`, since 5.5), and its arithmetic
//! spreads ours over both legs of a bond, or over all four (a test computes it; with three, one may be left out). So
//! the answers leave by each leg, whatever a switch hashes on their way to the host, and the gap is the longest over all
//! flows. UDP echo would need a listener on the host, and more source addresses would need them in the plan.
//!
//! Invariants: a reply counts for its own number, once, and within [`LATE`] alone; a gap is the time between the sendings
//! of two numbers that came back with none between, or between the coming of two such replies, whichever is longer.

use crate::world::{PingRun, PingStats, Pings};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::VecDeque;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(10);
/// Longest wait for an answer before the next look at the clock.
const WAIT: Duration = Duration::from_millis(2);
/// Flows, each with an identifier of its own.
const FLOWS: usize = 4;
/// A reply that comes later than this after its ping is none.
const LATE: Duration = Duration::from_secs(1);

/// The real pings.
pub(crate) struct IcmpPings;

/// A ping whose fate is open.
#[derive(Clone, Copy)]
struct Ping {
    number: u64,
    sent: Instant,
    answered: bool,
}

/// What one flow saw since its beginning.
struct Flow {
    sent: u64,
    back: u64,
    /// Sending time of the last number that came back and is settled; the flow's beginning before the first one.
    good: Instant,
    /// When the last reply that counts came.
    came: Instant,
    longest: Duration,
    /// Not yet settled, by number: at most what is sent within [`LATE`].
    open: VecDeque<Ping>,
}

impl Flow {
    fn new(now: Instant) -> Self {
        Self { sent: 0, back: 0, good: now, came: now, longest: Duration::ZERO, open: VecDeque::new() }
    }

    fn sends(&mut self, number: u64, now: Instant) {
        self.sent += 1;
        self.open.push_back(Ping { number, sent: now, answered: false });
        self.settle(now);
    }

    /// A reply with this number: the first one within [`LATE`] counts.
    fn answers(&mut self, number: u64, now: Instant) {
        self.settle(now);
        let Some(ping) = self.open.iter_mut().find(|ping| ping.number == number && !ping.answered) else {
            return;
        };
        ping.answered = true;
        self.back += 1;
        self.longest = self.longest.max(now.saturating_duration_since(self.came));
        self.came = now;
    }

    /// Ends the wait for numbers whose time is over, in their order.
    fn settle(&mut self, now: Instant) {
        while let Some(ping) =
            self.open.front().copied().filter(|ping| now.saturating_duration_since(ping.sent) > LATE)
        {
            self.open.pop_front();
            if ping.answered {
                self.longest = self.longest.max(ping.sent.saturating_duration_since(self.good));
                self.good = ping.sent;
            }
        }
    }

    /// Time since the last reply that counts.
    fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.came)
    }

    /// The longest gap, with those that are not settled yet, and the one that lasts.
    fn longest(&self, now: Instant) -> Duration {
        let (mut longest, mut good) = (self.longest.max(self.silent(now)), self.good);
        for ping in self.open.iter().filter(|ping| ping.answered) {
            longest = longest.max(ping.sent.saturating_duration_since(good));
            good = ping.sent;
        }
        longest
    }
}

/// All flows of a run.
struct Counts {
    flows: [Flow; FLOWS],
}

impl Counts {
    fn new(now: Instant) -> Self {
        Self { flows: std::array::from_fn(|_| Flow::new(now)) }
    }

    fn flow(&mut self, number: u64) -> &mut Flow {
        &mut self.flows[flow_of(number)]
    }

    fn stats(&self, now: Instant) -> PingStats {
        let worst = |of: &dyn Fn(&Flow) -> Duration| self.flows.iter().map(of).max().unwrap_or_default();
        PingStats {
            sent: self.flows.iter().map(|flow| flow.sent).sum(),
            back: self.flows.iter().map(|flow| flow.back).sum(),
            longest: worst(&|flow| flow.longest(now)),
            silent: worst(&|flow| flow.silent(now)),
        }
    }
}

/// Numbers go round the flows.
fn flow_of(number: u64) -> usize {
    (number % FLOWS as u64) as usize
}

/// A flow's ICMP identifier: the flow in bits 1 and 2, since Linux drops bit 0 of its hash.
fn identifier(base: u16, flow: usize) -> u16 {
    (base & !0x7) | ((flow as u16) << 1)
}

struct Shared {
    counts: Mutex<Counts>,
    rest: AtomicBool,
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
        self.0.counts().stats(Instant::now())
    }

    fn reset(&self) {
        // What is under way is of the time before, and counts for nothing.
        *self.0.counts() = Counts::new(Instant::now());
    }

    fn rest(&self, resting: bool) {
        self.0.rest.store(resting, Ordering::Relaxed);
    }
}

impl Pings for IcmpPings {
    fn start(&self, address: Ipv4Addr) -> Result<Box<dyn PingRun>, String> {
        let socket =
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).map_err(|e| e.to_string())?;
        socket.set_read_timeout(Some(WAIT)).map_err(|e| e.to_string())?;
        let counts = Mutex::new(Counts::new(Instant::now()));
        let shared = Arc::new(Shared { counts, rest: AtomicBool::default(), stop: AtomicBool::default() });
        let ours = shared.clone();
        std::thread::Builder::new()
            .name("pinger".to_owned())
            .spawn(move || run(socket, address, &ours))
            .map_err(|e| e.to_string())?;
        Ok(Box::new(Run(shared)))
    }
}

fn run(mut socket: Socket, address: Ipv4Addr, shared: &Shared) {
    let (token, base): ([u8; 8], u16) = (rand::random(), rand::random());
    let to = SockAddr::from(SocketAddrV4::new(address, 0));
    let (mut number, mut next) = (0_u64, Instant::now());
    let mut buffer = [0_u8; 1500];
    while !shared.stop.load(Ordering::Relaxed) {
        if Instant::now() >= next && !shared.rest.load(Ordering::Relaxed) {
            for _ in 0..FLOWS {
                number += 1;
                // Noted first: the reply may be faster than we are. An error (no route just now) is a lost ping.
                shared.counts().flow(number).sends(number, Instant::now());
                let _ = socket.send_to(&request(identifier(base, flow_of(number)), &token, number), &to);
            }
            next = (next + EVERY).max(Instant::now());
        }
        let Ok(length) = socket.read(&mut buffer) else { continue };
        let Some(number) = answered(&buffer[..length], &token, address) else { continue };
        shared.counts().flow(number).answers(number, Instant::now());
    }
}

/// Echo request: type 8, the flow's identifier; our token and the number as data.
fn request(identifier: u16, token: &[u8; 8], number: u64) -> [u8; 24] {
    let mut packet = [0_u8; 24];
    packet[0] = 8;
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
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
        let mut icmp = request(0x1234, &token, 70_000);
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

    /// What happens to one flow at a moment, ms: a number is sent, or a reply with it comes.
    enum At {
        Sent(u64, u64),
        Reply(u64, u64),
    }
    use At::{Reply, Sent};

    #[test]
    fn a_reply_counts_for_its_own_number_once_and_in_time() {
        let ms = Duration::from_millis;
        // Events; looked at; numbers back; longest gap.
        let table: Vec<(&str, Vec<At>, u64, u64, u64)> = vec![
            ("all come back", vec![Sent(0, 1), Reply(1, 1), Sent(10, 2), Reply(11, 2)], 12, 2, 10),
            (
                "duplicates are no flow",
                vec![Sent(0, 1), Reply(1, 1), Sent(10, 2), Reply(300, 1), Reply(600, 1)],
                700,
                1,
                699,
            ),
            (
                "a late reply is no flow",
                vec![Sent(0, 1), Reply(1, 1), Sent(10, 2), Reply(1011, 2)],
                1012,
                1,
                1011,
            ),
            ("a number that was never sent", vec![Sent(0, 1), Reply(1, 1), Reply(500, 7)], 600, 1, 599),
            (
                "a lost number: between the sendings beside it",
                vec![Sent(0, 1), Reply(5, 1), Sent(10, 2), Sent(400, 3), Reply(402, 3)],
                402,
                2,
                400,
            ),
            (
                "what was held back and comes in one go is a gap",
                vec![Sent(0, 1), Reply(1, 1), Sent(10, 2), Sent(20, 3), Reply(900, 2), Reply(900, 3)],
                901,
                3,
                899,
            ),
            (
                "out of order is no loss",
                vec![
                    Sent(0, 1),
                    Sent(10, 2),
                    Sent(20, 3),
                    Reply(21, 3),
                    Reply(22, 2),
                    Reply(23, 1),
                    Sent(1100, 4),
                    Reply(1101, 4),
                ],
                1102,
                4,
                1080,
            ),
        ];
        for (name, events, looked, back, longest) in table {
            let from = Instant::now();
            let mut flow = Flow::new(from);
            for event in events {
                match event {
                    Sent(at, number) => flow.sends(number, from + ms(at)),
                    Reply(at, number) => flow.answers(number, from + ms(at)),
                }
            }
            assert_eq!((flow.back, flow.longest(from + ms(looked))), (back, ms(longest)), "{name}");
        }
    }

    #[test]
    fn one_flow_that_is_silent_is_the_gap_of_all() {
        let from = Instant::now();
        let mut counts = Counts::new(from);
        for (number, n) in (0..400_u64).map(|number| (number, number / 4)) {
            let now = from + EVERY * n as u32;
            counts.flow(number).sends(number, now);
            if flow_of(number) != 2 {
                counts.flow(number).answers(number, now);
            }
        }
        let stats = counts.stats(from + EVERY * 99);
        assert_eq!((stats.sent, stats.back), (400, 300));
        assert_eq!((stats.longest, stats.silent), (EVERY * 99, EVERY * 99));
        assert!(counts.flows.iter().all(|flow| flow.open.len() <= 101), "what is open is bounded");
    }

    /// Linux's choice of the leg for an echo reply under layer3+4 (bond_main.c: `__bond_xmit_hash`, `bond_ip_hash`).
    fn leg(from: Ipv4Addr, to: Ipv4Addr, id: [u8; 2], legs: u32) -> u32 {
        let word = |address: Ipv4Addr| u32::from_le_bytes(address.octets());
        let mut hash = u32::from_le_bytes([0, 0, id[0], id[1]]);
        hash ^= word(from) ^ word(to);
        hash ^= hash >> 16;
        hash ^= hash >> 8;
        (hash >> 1) % legs
    }

    proptest::proptest! {
        #[test]
        fn the_flows_use_every_leg_of_a_bond(base: u16, from: u32, to: u32) {
            // Whichever order the kernel keeps the identifier in.
            for bytes in [u16::to_be_bytes, u16::to_le_bytes] {
                for legs in [2, 4] {
                    let of = |flow| leg(from.into(), to.into(), bytes(identifier(base, flow)), legs);
                    let used: std::collections::BTreeSet<u32> = (0..FLOWS).map(of).collect();
                    proptest::prop_assert_eq!(used.len(), legs as usize);
                }
            }
        }
    }

    #[test]
    #[ignore = "needs a raw socket: root"]
    fn loopback_answers_and_a_reset_counts_anew() {
        let run = IcmpPings.start(Ipv4Addr::LOCALHOST).expect("a raw socket");
        let until = Instant::now() + Duration::from_secs(20);
        while run.stats().back < 20 {
            assert!(Instant::now() < until, "{:?}", run.stats());
            std::thread::yield_now();
        }
        run.reset();
        assert!(run.stats().back < 20);
    }
}
