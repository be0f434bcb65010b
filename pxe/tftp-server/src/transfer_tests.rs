use std::time::Duration;

use proptest::prelude::*;

use super::*;

const GIVE_UP: Duration = Duration::from_secs(20);
/// So that loss alone ends no transfer before its first acknowledgement.
const PATIENCE: Patience = Patience { first: GIVE_UP, oacks: 100, blocks: 100, ..Patience::EXPECTED };

fn terms(block: u16, window: u16, oack: bool) -> Terms {
    let oack = if oack { vec![("blksize", u64::from(block))] } else { vec![] };
    Terms { block, window, timeout: None, oack }
}

fn file(len: usize) -> Bytes {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect::<Vec<_>>().into()
}

fn blocks(first: u64, last: u64) -> Option<Send> {
    Some(Send::Blocks { first, last })
}

#[test]
fn an_abort_of_the_oack_is_told_apart_from_a_failure() {
    let now = Instant::now();
    let (mut t, step) = Transfer::start(file(3000), terms(1468, 4, true), PATIENCE, now);
    assert_eq!(step.send, Some(Send::Oack));
    let got = t.handle(Incoming::Error(8, "User aborted".into()), now).outcome;
    assert!(matches!(got, Some(Outcome::Aborted { after_oack: true, code: 8, .. })), "{got:?}");

    let (mut t, _) = Transfer::start(file(3000), terms(1468, 4, true), PATIENCE, now);
    t.handle(Incoming::Ack(0), now);
    let got = t.handle(Incoming::Error(3, "disk full".into()), now).outcome;
    assert!(matches!(got, Some(Outcome::Aborted { after_oack: false, .. })), "{got:?}");
}

#[test]
fn without_options_data_comes_at_once_and_a_full_last_block_is_followed_by_an_empty_one() {
    let now = Instant::now();
    let (mut t, step) = Transfer::start(file(1024), terms(512, 1, false), PATIENCE, now);
    assert_eq!(step.send, blocks(1, 1));
    assert_eq!(t.handle(Incoming::Ack(1), now).send, blocks(2, 2));
    let step = t.handle(Incoming::Ack(2), now);
    assert_eq!(step.send, blocks(3, 3));
    assert_eq!(t.packet(3), ([0, 3, 0, 3], &[][..]));
    assert_eq!(t.handle(Incoming::Ack(3), now).outcome, Some(Outcome::Completed));
    assert_eq!(t.acked_bytes(), 1024);
}

#[test]
fn duplicate_stale_and_future_acknowledgements_send_nothing() {
    let now = Instant::now();
    let (mut t, _) = Transfer::start(file(512 * 20), terms(512, 4, true), PATIENCE, now);
    assert_eq!(t.handle(Incoming::Ack(7), now), Step::default(), "no data before ACK 0");
    assert_eq!(t.handle(Incoming::Ack(0), now).send, blocks(1, 4));
    assert_eq!(t.handle(Incoming::Ack(0), now), Step::default());
    assert_eq!(t.handle(Incoming::Ack(5), now), Step::default(), "not sent yet");
    assert_eq!(t.handle(Incoming::Ack(4), now).send, blocks(5, 8));
    for stale in [4, 3, 1, 0, 9, 65535] {
        assert_eq!(t.handle(Incoming::Ack(stale), now), Step::default(), "{stale}");
    }
    assert_eq!(t.handle(Incoming::Ack(6), now).send, blocks(7, 10), "a gap moves the window");
}

#[test]
fn the_interval_is_measured_backs_off_and_ends() {
    let start = Instant::now();
    let (mut t, _) = Transfer::start(file(4000), terms(512, 1, true), PATIENCE, start);
    let quick = start + Duration::from_millis(2);
    t.handle(Incoming::Ack(0), quick);
    assert!(t.deadline() - quick <= Duration::from_millis(20), "follows a 2 ms round trip");
    assert_eq!(t.tick(quick), Step::default(), "not due");
    let mut sent = 0;
    let mut last = quick;
    loop {
        let now = t.deadline();
        assert!(now > last);
        last = now;
        let step = t.tick(now);
        if let Some(outcome) = step.outcome {
            assert_eq!(outcome, Outcome::TimedOut);
            break;
        }
        assert_eq!(step.send, blocks(1, 1));
        sent += 1;
    }
    assert!((6..40).contains(&sent), "{sent} retransmissions");
    assert!(last - quick < GIVE_UP * 2);
    assert_eq!(t.acked(), 0);
}

#[test]
fn a_port_closed_after_the_last_block_is_an_end_and_before_it_a_failure() {
    let now = Instant::now();
    let (mut t, _) = Transfer::start(file(512 * 6), terms(512, 4, true), PATIENCE, now);
    assert_eq!(t.refused().outcome, Some(Outcome::PortClosed), "the OACK went nowhere");
    t.handle(Incoming::Ack(0), now);
    assert_eq!(t.refused().outcome, Some(Outcome::PortClosed), "blocks 5 to 7 were not sent");
    t.handle(Incoming::Ack(4), now);
    assert_eq!(t.refused().outcome, Some(Outcome::Completed));
}

#[test]
fn block_numbers_wrap() {
    let now = Instant::now();
    let (mut t, step) = Transfer::start(file(8 * 70_000), terms(8, 1, false), PATIENCE, now);
    let mut send = step.send;
    let mut wire = 1u16;
    while let Some(next) = send {
        let Send::Blocks { first, last } = next else { panic!("{next:?}") };
        assert_eq!(first, last);
        assert_eq!(t.packet(first).0[2..], wire.to_be_bytes());
        send = t.handle(Incoming::Ack(wire), now).send;
        wire = wire.wrapping_add(1);
    }
    assert_eq!(t.acked(), 70_001);
}

/// A client of RFC 7440 that loses what `lost` draws, driven by the state machine alone.
fn receive(len: usize, block: u16, window: u16, mut lost: impl FnMut() -> bool) -> (Vec<u8>, u64) {
    let mut now = Instant::now();
    let (mut t, mut step) = Transfer::start(file(len), terms(block, window, true), PATIENCE, now);
    let (mut got, mut expected, mut packets) = (Vec::new(), 0u64, 0u64);
    let mut done = false;
    loop {
        if step.outcome.is_some() {
            assert_eq!(step.outcome, Some(Outcome::Completed));
            return (got, packets);
        }
        let mut reply = None;
        match step.send.take() {
            Some(Send::Oack) => {
                packets += 1;
                reply = (!lost()).then_some(0);
            }
            Some(Send::Blocks { first, last }) => {
                let mut sent = Vec::new();
                t.packets(first, last, &mut sent);
                for (number, (header, data)) in (first..).zip(sent) {
                    assert_eq!(header[2..], (number as u16).to_be_bytes());
                    packets += 1;
                    if lost() {
                        continue;
                    }
                    if number == expected + 1 && !done {
                        expected += 1;
                        got.extend_from_slice(data);
                        done = data.len() < usize::from(block);
                    }
                    reply = Some(expected as u16);
                }
            }
            None => {}
        }
        now += Duration::from_micros(300);
        step = match reply {
            Some(ack) if !lost() => t.handle(Incoming::Ack(ack), now),
            _ => Step::default(),
        };
        if step == Step::default() {
            now = t.deadline();
            step = t.tick(now);
        }
    }
}

proptest! {
    #[test]
    fn the_file_arrives_whole_through_loss(
        len in 0usize..20_000, block in 8u16..1469, window in 1u16..40,
        mut seed in any::<u64>(), percent in 0u64..16,
    ) {
        let lost = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % 100 < percent
        };
        let (got, _) = receive(len, block, window, lost);
        prop_assert_eq!(got, file(len).to_vec());
    }
}

#[test]
fn a_clean_link_carries_each_block_once() {
    let (got, packets) = receive(100_000, 1000, 8, || false);
    assert_eq!(got.len(), 100_000);
    assert_eq!(packets, 1 + 101);
}

/// Times at which packets go out to a client that never answers, in milliseconds, and when it ends.
fn unanswered(terms: Terms, patience: Patience) -> (Vec<u128>, u128) {
    let start = Instant::now();
    let (mut t, step) = Transfer::start(file(4000), terms, patience, start);
    assert!(step.send.is_some());
    let mut sent = vec![0];
    loop {
        let now = t.deadline();
        let (step, at) = (t.tick(now), now.duration_since(start).as_millis());
        if let Some(outcome) = step.outcome {
            assert_eq!(outcome, Outcome::TimedOut);
            return (sent, at);
        }
        assert!(t.deadline() > now, "time goes on");
        sent.extend(step.send.map(|_| at));
    }
}

#[test]
fn whoever_never_acknowledges_gets_few_packets_and_holds_its_place_for_seconds() {
    let plain = || terms(512, 1, false);
    assert_eq!(unanswered(plain(), Patience::STRANGER), (vec![0, 500], 4_000), "one repeat of a block");
    assert_eq!(
        unanswered(terms(1468, 4, true), Patience::STRANGER),
        (vec![0, 500, 1_500, 3_500], 4_000),
        "an OACK is small"
    );
    assert_eq!(unanswered(plain(), Patience::EXPECTED), (vec![0, 500, 1_500, 3_500, 7_500], 10_000));
    let quick = Terms { timeout: Some(Duration::from_secs(1)), ..terms(1468, 4, true) };
    assert_eq!(unanswered(quick, Patience::EXPECTED).0.len(), 6, "its own timeout buys no more repeats");
}

#[test]
fn whoever_acknowledges_just_often_enough_does_not_hold_its_place_for_ever() {
    let mut now = Instant::now();
    let start = now;
    let patience = Patience { grace: Duration::from_secs(30), least_rate: 1000, ..Patience::STRANGER };
    let (mut t, _) = Transfer::start(file(100_000), terms(512, 1, true), patience, now);
    let mut ack = 0u16;
    let end = loop {
        now += Duration::from_secs(5);
        let step = t.handle(Incoming::Ack(ack), now);
        if let Some(outcome) = step.outcome {
            break outcome;
        }
        assert_eq!(step.send, blocks(u64::from(ack) + 1, u64::from(ack) + 1));
        ack += 1;
    };
    assert_eq!(end, Outcome::TooSlow);
    assert_eq!(now.duration_since(start), Duration::from_secs(130), "30 s and 100 s for 100,000 bytes");
}
