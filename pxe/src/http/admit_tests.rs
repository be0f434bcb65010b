use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::*;

fn client(n: u32) -> IpAddr {
    IpAddr::from((0x0a4d_0000 + n).to_be_bytes())
}

/// A link, and a clock that only the test turns.
struct Room {
    link: Arc<Link>,
    start: Instant,
}

impl Room {
    fn new(places: usize) -> Self {
        // Flows that are dropped note the time of this machine: the test's own lies far ahead of it.
        Self { link: Link::new(places), start: Instant::now() + Duration::from_secs(86_400) }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn boot(&self, n: u32, millis: u64) -> Result<Flow, u64> {
        self.link.enter(client(n), Rank::Boot, self.at(millis))
    }

    fn end(&self, flow: Flow, millis: u64) {
        self.link.ended(flow.client, self.at(millis));
        std::mem::forget(flow);
    }
}

#[test]
fn a_place_is_kept_through_a_boot_and_then_given_to_who_was_told_to_come() {
    let room = Room::new(1);
    let kernel = room.boot(1, 0).unwrap();
    let wait = room.boot(2, 10).unwrap_err();
    assert_eq!(wait, 2, "half of the expected three seconds");
    room.end(kernel, 400);
    let initrd = room.boot(1, 500).expect("the same client goes on");
    assert!(room.boot(2, 600).is_err(), "early, and still taken");
    room.end(initrd, 900);
    room.link.done(client(1), room.at(900));
    assert!(room.boot(3, 1700).is_err(), "kept for the one that is due");
    let second = room.boot(2, 2000).expect("it was told to come now");
    assert!(room.boot(3, 2100).is_err());
    room.end(second, 2150);
    assert!(room.boot(3, 2200).is_err(), "the second may go on with its next file");
    assert!(room.boot(3, 9000).is_ok(), "it did not");
}

#[test]
fn who_never_comes_back_blocks_nobody_for_long() {
    let room = Room::new(1);
    let held = room.boot(1, 0).unwrap();
    let seconds = room.boot(2, 0).unwrap_err();
    room.end(held, 0);
    room.link.done(client(1), room.at(0));
    let late = seconds * 1000 + u64::try_from(LATE.as_millis()).unwrap();
    assert!(room.boot(3, late - 1).is_err());
    assert!(room.boot(4, late).is_ok(), "the third is not due, the second has given up");
}

#[test]
fn a_storm_is_told_to_come_in_waves_and_costs_bounded_memory() {
    let room = Room::new(10);
    let all: Vec<_> = (0..10_000).map(|n| room.boot(n, 0)).collect();
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 10);
    let told: Vec<u64> = all.iter().filter_map(|one| one.as_ref().err().copied()).collect();
    assert!(
        told.is_sorted() && told[0] <= 2 && told[15] > told[0] && told[9_000] == LONGEST,
        "{:?}",
        &told[..40]
    );
    assert_eq!(room.link.lock().waiting.len(), WAITING);
}

#[test]
fn several_connections_of_one_client_share_its_place() {
    let room = Room::new(1);
    let flows: Vec<_> = (0..4).map(|_| room.boot(1, 0).unwrap()).collect();
    drop(flows);
    assert_eq!(room.link.lock().held.len(), 1);
}

#[test]
fn a_host_with_an_open_window_goes_before_others_that_asked_before_it() {
    let room = Room::new(1);
    let enter = |n, rank, millis| room.link.enter(client(n), rank, room.at(millis));
    let first = enter(1, Rank::Other, 0).unwrap();
    assert!(enter(2, Rank::Other, 0).is_err());
    assert!(enter(3, Rank::Host, 0).is_err());
    assert_eq!(enter(4, Rank::Boot, 0).unwrap_err(), 2, "nobody is before it");
    room.end(first, 1000);
    room.link.done(client(1), room.at(1000));
    assert!(enter(2, Rank::Other, 1500).is_err(), "told to come, and behind two that are due");
    let boot = enter(4, Rank::Boot, 1500).expect("first of its rank");
    room.end(boot, 1900);
    room.link.done(client(4), room.at(1900));
    assert!(enter(2, Rank::Other, 2600).is_err(), "a planned host is due");
    assert!(enter(3, Rank::Host, 2700).is_ok());
}

#[test]
fn a_queue_full_of_strangers_has_room_for_a_host() {
    let room = Room::new(1);
    let _first = room.boot(1, 0).unwrap();
    for n in 10..10 + u32::try_from(WAITING).unwrap() {
        assert!(room.link.enter(client(n), Rank::Other, room.at(0)).is_err());
    }
    assert_eq!(room.boot(2, 0).unwrap_err(), 2);
    let state = room.link.lock();
    assert_eq!(state.waiting.len(), WAITING);
    assert!(state.waiting.contains_key(&client(2)));
}

#[test]
fn ten_slow_addresses_do_not_stop_a_boot() {
    let room = Room::new(10);
    let slow: Vec<_> = (0..10).map(|n| room.link.enter(client(n), Rank::Host, room.at(0)).unwrap()).collect();
    assert!(room.boot(100, 0).is_err());
    let take = |flow: &Flow, bytes| flow.moved().fetch_add(bytes, Ordering::Relaxed);
    // One of them takes what a slow link would give it, the others a trickle.
    take(&slow[0], FLOOR * 6);
    slow[1..].iter().for_each(|flow| {
        take(flow, 5_000);
    });
    let boots: Vec<_> = (100..110).map(|n| room.boot(n, 5500)).collect();
    assert_eq!(boots.iter().filter(|one| one.is_ok()).count(), 9, "each slow one's place");
    assert_eq!(room.link.lock().held.len(), 19, "and their bodies go on");
    let again = |n, millis| room.link.enter(client(n), Rank::Host, room.at(millis));
    for connection in 0..32 {
        assert!(again(3, 5600).is_err(), "one that is slow queues for its next file: {connection}");
    }
    assert!(again(0, 5600).is_ok(), "one that is not has its place");
    for (n, flow) in (100..).zip(boots.into_iter().flatten()) {
        room.end(flow, 6000);
        room.link.done(client(n), room.at(6000));
    }
    assert!(again(3, 7000).is_ok(), "there is room");
    let state = room.link.lock();
    assert!(!state.held[&client(3)].slow, "and it counts as others do");
    assert!(state.held[&client(4)].slow);
}

/// Ten addresses that say they are firmware: each takes what is no trickle, and connects anew before it has been there for
/// too long. Beside them hosts boot one after another, five at a time, each in three seconds.
#[test]
fn strangers_that_cannot_wait_never_have_more_than_half_of_the_places() {
    for (meter, rate) in [(Meter::Bytes, 300 * 1024), (Meter::Unknown, 4 * 1024)] {
        let room = Room::new(10);
        let mut strangers: Vec<Flow> = Vec::new();
        let mut hosts: Vec<(u32, Flow)> = Vec::new();
        for second in 0..1200_u64 {
            let (now, millis) = (room.at(second * 1000), second * 1000);
            if second % 119 == 0 {
                strangers.drain(..).for_each(|flow| room.end(flow, millis));
                let begin = |n| room.link.count(client(n), Rank::Other, meter, now);
                strangers = (0..10).map(begin).collect();
            }
            strangers.iter().for_each(|flow| {
                flow.moved().fetch_add(rate, Ordering::Relaxed);
            });
            if second % 4 == 3 {
                for (n, flow) in hosts.drain(..) {
                    room.end(flow, millis);
                    room.link.done(client(n), now);
                }
                continue;
            }
            if second % 4 == 0 {
                let first = 1000 + u32::try_from(second).unwrap() * 10;
                for n in first..first + 5 {
                    let flow = room.boot(n, millis).unwrap_or_else(|wait| {
                        panic!("{meter:?}: at {second} s a host is told to wait for {wait} s")
                    });
                    hosts.push((n, flow));
                }
            }
            hosts.iter().for_each(|(_, flow)| {
                flow.moved().fetch_add(FLOOR * 100, Ordering::Relaxed);
            });
        }
    }
}

#[test]
fn strangers_that_can_wait_have_half_of_the_places_and_hosts_all() {
    let room = Room::new(10);
    let enter = |n, rank| room.link.enter(client(n), rank, room.at(0));
    let strangers: Vec<_> = (0..20).filter_map(|n| enter(n, Rank::Other).ok()).collect();
    assert_eq!(strangers.len(), 5);
    let hosts: Vec<_> = (100..120).filter_map(|n| enter(n, Rank::Host).ok()).collect();
    assert_eq!(hosts.len(), 5);
    let room = Room::new(10);
    let hosts: Vec<_> = (0..20).filter_map(|n| room.boot(n, 0).ok()).collect();
    assert_eq!(hosts.len(), 10);
}

#[test]
fn who_holds_its_place_too_long_no_longer_counts_while_others_wait() {
    let room = Room::new(1);
    let long = room.boot(1, 0).unwrap();
    let over = u64::try_from(LONGEST_HOLD.as_millis()).unwrap();
    let mut at = 0;
    while at < over {
        long.moved().fetch_add(FLOOR * 2, Ordering::Relaxed);
        assert!(room.boot(2, at).is_err(), "it moves: {at} ms");
        at += 1000;
    }
    assert!(room.boot(2, over).is_ok());
}

#[test]
fn who_holds_its_place_long_keeps_it_while_nobody_waits_that_goes_before_it() {
    let room = Room::new(1);
    let long = room.boot(1, 0).unwrap();
    let over = u64::try_from(LONGEST_HOLD.as_millis()).unwrap();
    long.moved().fetch_add(1 << 40, Ordering::Relaxed);
    room.link.done(client(99), room.at(over));
    assert!(room.boot(1, over).is_ok(), "with its next file too");
    assert!(!room.link.lock().held[&client(1)].slow, "nobody waits");
    let other = |at| room.link.enter(client(2), Rank::Other, room.at(at));
    assert!(other(over + 1000).is_err());
    long.moved().fetch_add(1 << 40, Ordering::Relaxed);
    assert!(other(over + 3000).is_err(), "a stranger waits, and a host's boot goes before it");
    assert!(room.boot(3, over + 4000).is_err(), "it begins to wait");
    assert!(room.boot(3, over + 6000).is_ok(), "and has waited as it was told");
}

#[test]
fn who_cannot_wait_is_served_and_counted() {
    let room = Room::new(2);
    let unmetered = room.link.count(client(1), Rank::Host, Meter::Unknown, room.at(0));
    let firmware = room.link.count(client(2), Rank::Host, Meter::Bytes, room.at(0));
    let third = room.link.count(client(3), Rank::Host, Meter::Bytes, room.at(0));
    assert!(room.boot(4, 0).is_err(), "three hold two places");
    room.end(firmware, 100);
    room.end(third, 100);
    room.link.done(client(2), room.at(100));
    assert!(room.boot(4, 6000).is_ok(), "how fast TFTP goes is not known, and it counts: one place is left");
    assert!(room.boot(5, 6000).is_err());
    room.end(unmetered, 6100);
    assert!(room.boot(5, 8000).is_ok());
}

/// How a storm went.
struct Storm {
    /// Seconds until the last one had all its files.
    took: f64,
    /// The same of the last one of each rank.
    last: BTreeMap<Rank, f64>,
    /// Longest time between two requests of a client that waits, seconds.
    longest_silence: u64,
}

/// Each client asks, waits as it is told, has its kernel for 1 s and its initramfs for 7 s.
fn storm(places: usize, clients: &[(Rank, u64)]) -> Storm {
    let room = Room::new(places);
    let mut agenda: BinaryHeap<Reverse<(u64, u32, u8)>> = BinaryHeap::new();
    agenda.extend(clients.iter().zip(0..).map(|((_, at), n)| Reverse((*at, n, 0))));
    let mut flows: HashMap<u32, Flow> = HashMap::new();
    let mut storm = Storm { took: 0.0, last: BTreeMap::new(), longest_silence: 0 };
    while let Some(Reverse((at, n, step))) = agenda.pop() {
        let (rank, now) = (clients[n as usize].0, room.at(at));
        if let Some(flow) = flows.remove(&n) {
            room.end(flow, at);
        }
        if step == 2 {
            room.link.done(client(n), now);
            storm.took = at as f64 / 1000.0;
            storm.last.insert(rank, storm.took);
            continue;
        }
        match room.link.enter(client(n), rank, now) {
            Ok(flow) => {
                // No slow one, whenever it is looked at.
                flow.moved().fetch_add(FLOOR * 100, Ordering::Relaxed);
                flows.insert(n, flow);
                agenda.push(Reverse((at + [1000, 7000][usize::from(step)], n, step + 1)));
            }
            Err(seconds) => {
                assert_eq!(step, 0, "its place is kept for the second file");
                storm.longest_silence = storm.longest_silence.max(seconds);
                // It needs some time to come back.
                agenda.push(Reverse((at + seconds * 1000 + 30, n, step)));
            }
        }
        assert!(room.link.lock().counted(room.link.strangers()) <= places);
    }
    storm
}

#[test]
fn a_thousand_hosts_are_served_at_the_links_speed_and_none_is_silent_for_long() {
    let storm = storm(10, &(0..1000).map(|n| (Rank::Boot, n % 50)).collect::<Vec<_>>());
    let ideal = 1000.0 / 10.0 * 8.0;
    assert!(storm.took < ideal * 1.15, "{} s, {ideal} at best", storm.took);
    assert!(storm.longest_silence <= LONGEST);
}

#[test]
fn hosts_that_boot_are_served_before_a_crowd_that_came_first() {
    let mut clients = vec![(Rank::Other, 0); 900];
    clients.extend([(Rank::Boot, 5000); 100]);
    let storm = storm(10, &clients);
    let (boots, others) = (storm.last[&Rank::Boot], storm.last[&Rank::Other]);
    assert!(boots < 5.0 + 8.0 + 100.0 / 10.0 * 8.0 * 1.15, "{boots} s, of {others} s for all");
}
