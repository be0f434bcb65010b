//! Tables: what each step answers to which facts; and properties of whole lives.

use crate::testing;
use crate::{Action, ActionKind, Advance, Snapshot, Surroundings, advance, desired, retry};
use dayzero_model::condition::{Condition, Conditions, State};
use dayzero_model::facts::*;
use dayzero_model::ids::{HostName, Sha256};
use dayzero_model::install::{DiskConsent, DiskFinding};
use dayzero_model::site::Site;
use dayzero_model::startup::{BootDevice, BootEntry};
use dayzero_model::units::Timestamp;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_000_000);

/// One host in a test: decided again after each change.
struct Case {
    site: Site,
    around: Surroundings,
    facts: HostFacts,
    conditions: Conditions,
    now: Timestamp,
    busy: Option<ActionKind>,
}

impl Case {
    fn new() -> Self {
        let (site, around) = (testing::site(), testing::around());
        Self {
            site,
            around,
            facts: HostFacts::default(),
            conditions: Conditions::new(NOW),
            now: NOW,
            busy: None,
        }
    }

    /// A host that has come as far as `to` (not included).
    fn at(to: Condition) -> Self {
        let mut case = Self::new();
        let facts = testing::whole(&case.site, "host1");
        case.facts = testing::cut(facts, to);
        case.step();
        case
    }

    fn step(&mut self) -> Advance {
        let placed = self.site.hosts().next().unwrap();
        let s = Snapshot {
            site: &self.site,
            placed,
            facts: &self.facts,
            conditions: &self.conditions,
            plan_hash: Sha256([3; 32]),
            around: &self.around,
            busy: self.busy,
        };
        let next = advance(&s, self.now);
        self.conditions = next.conditions.clone();
        if next.failure.is_some() {
            self.facts.failure.clone_from(&next.failure);
        }
        next
    }

    fn phase(&self) -> Option<Condition> {
        self.conditions.phase().map(|record| record.condition)
    }

    fn code(&self) -> String {
        match self.conditions.phase().map(|record| &record.state) {
            Some(State::Failed(cause)) => {
                let parts = [&cause.sentence, &cause.expected, &cause.observed, &cause.next_action];
                assert!(parts.iter().all(|part| !part.is_empty()), "{cause:?}");
                cause.code.clone()
            }
            other => format!("{other:?}"),
        }
    }
}

#[test]
fn each_point_of_a_life_asks_for_its_action() {
    let mut seen = Vec::new();
    for condition in Condition::ALL {
        let mut case = Case::at(condition);
        let next = case.step();
        let state = case.conditions.phase().map(|record| match &record.state {
            State::Working { waits_for, .. } => format!("{} waits for {waits_for}", record.condition),
            other => format!("{} {other:?}", record.condition),
        });
        let action = next.action.map(|action| action.kind());
        seen.push(format!("{condition}: {} [{action:?}]", state.unwrap_or_default()));
    }
    insta::assert_snapshot!(seen.join("\n"));
}

#[test]
fn a_whole_host_is_met_with_evidence_and_nothing_to_do() {
    let mut case = Case::new();
    case.facts = testing::whole(&case.site, "host1");
    let next = case.step();
    assert_eq!((case.phase(), next.action), (None, None));
    let evidence = case.conditions.0.iter().map(|record| match &record.state {
        State::Met { evidence, .. } => format!("{}: {evidence}", record.condition),
        other => format!("{}: {other:?}", record.condition),
    });
    insta::assert_snapshot!(evidence.collect::<Vec<_>>().join("\n"));
    assert!(case.step().changes.is_empty(), "nothing changes when nothing changed");
}

#[test]
fn each_fault_has_its_cause() {
    type Fault = fn(&mut Case);
    let table: Vec<(&str, Condition, Fault)> = vec![
        ("serial-mismatch", Condition::Identified, |c| {
            c.facts.bmc.as_mut().unwrap().serial = Some("OTHER".into())
        }),
        ("serial-mismatch", Condition::Identified, |c| {
            c.facts.bmc.as_mut().unwrap().uuid = Some("00112233-4455-6677-8899-aabbccddeeff".into());
        }),
        ("serial-mismatch", Condition::Identified, |c| {
            c.facts.bmc.as_mut().unwrap().bmc_mac = Some("52:54:00:00:00:01".parse().unwrap());
        }),
        ("serial-mismatch", Condition::Inventoried, |c| {
            c.facts.inventory.as_mut().unwrap().system.serial = Some("OTHER".into());
        }),
        ("profile-missing", Condition::Matched, |c| c.around.drift = None),
        ("profile-drift", Condition::Matched, |c| c.around.drift = Some(vec!["2 DIMMs, not 4".into()])),
        ("cable-swapped", Condition::Cabled, |c| {
            let heard = &mut c.facts.inventory.as_mut().unwrap().neighbours;
            heard[0].system_name = "sw-b".into();
            heard[1].system_name = "sw-a".into();
        }),
        ("cable-unknown", Condition::Cabled, |c| {
            c.facts.inventory.as_mut().unwrap().neighbours.remove(2);
        }),
        ("no-image", Condition::Imaged, |c| {
            c.facts.install = None;
            c.facts.agent.as_mut().unwrap().installed = false;
            c.around.manifest_sha256 = None;
        }),
        ("foreign-disk", Condition::Imaged, |c| {
            c.facts.install = None;
            c.facts.finding =
                Some(DiskFinding::new(Some("DZDISK0001".into()), None, vec!["an ext4 filesystem".into()]));
        }),
        ("boot-order", Condition::Imaged, |c| {
            let started = c.facts.started.as_mut().unwrap();
            let pxe = BootEntry { number: 1, name: "UEFI PXEv4".into(), leads: BootDevice::Network };
            started.order.insert(0, pxe);
        }),
        ("started-elsewhere", Condition::Imaged, |c| {
            c.facts.started.as_mut().unwrap().root.disk_guid = Some("another".into())
        }),
        ("path-degraded", Condition::Wired, |c| {
            c.facts.network.as_mut().unwrap().bond.as_mut().unwrap().legs[1].usable = false
        }),
        ("path-degraded", Condition::Wired, |c| c.facts.luns[0].paths[1].active = false),
        ("network-differs", Condition::Wired, |c| {
            let report = c.facts.network.as_mut().unwrap();
            report.converged = false;
            report.problems = vec!["eth9 has an address in 10.77.0.0/24".into()];
        }),
        ("proof-failed", Condition::Proven, |c| {
            let proof = c.facts.proof.as_mut().unwrap();
            proof.held = false;
            proof.trials[0].held = false;
        }),
        ("proof-refused", Condition::Proven, |c| {
            let proof = c.facts.proof.as_mut().unwrap();
            (proof.held, proof.refused) = (false, Some("degraded".into()));
        }),
        ("no-virtualisation", Condition::Joined, |c| c.facts.capacity.as_mut().unwrap().kvm = false),
        ("host-lost", Condition::Joined, |c| c.facts.lost = Some(NOW)),
    ];
    for (code, condition, fault) in table {
        let mut case = Case::new();
        case.facts = testing::whole(&case.site, "host1");
        case.step();
        fault(&mut case);
        let next = case.step();
        assert_eq!((case.phase(), case.code().as_str()), (Some(condition), code));
        assert_eq!(next.action, None, "{code}: a stopped host is left alone");
    }
}

#[test]
fn a_swapped_cable_is_named_from_where_to_where() {
    let mut case = Case::new();
    case.facts = testing::whole(&case.site, "host1");
    let heard = &mut case.facts.inventory.as_mut().unwrap().neighbours;
    (heard[0].system_name, heard[0].port_id) = ("sw-b".into(), "7".into());
    case.step();
    let Some(State::Failed(cause)) = case.conditions.phase().map(|record| record.state.clone()) else {
        panic!("not stopped")
    };
    assert!(
        cause.next_action.contains("move the cable of pod-a from sw-b/7 to sw-a/1"),
        "{}",
        cause.next_action
    );
    // What the running network hears goes before the inventory.
    let mut moved = case.facts.inventory.as_ref().unwrap().neighbours.clone();
    (moved[0].system_name, moved[0].port_id) = ("sw-a".into(), "1".into());
    case.facts.network.as_mut().unwrap().neighbours = moved;
    case.step();
    assert_eq!(case.phase(), None);
}

#[test]
fn identity_is_a_set_and_junk_is_data() {
    use super::identified::{compare, told};
    let site = testing::site();
    let host = site.hosts().next().unwrap().host;
    let uuid = host.uuid.clone().unwrap();
    let swapped = super::identified::swapped_uuid(&uuid).unwrap();
    assert_ne!(swapped, uuid);
    for (serial, other, agreed) in [
        (Some("DZ-LAB-0001"), Some(uuid.as_str()), 2),
        (Some("dz-lab-0001 "), Some(swapped.as_str()), 2),
        (Some("To Be Filled By O.E.M."), Some("00000000-0000-0000-0000-000000000000"), 0),
        (None, None, 0),
    ] {
        assert_eq!(compare(host, serial, other, "the BMC").unwrap().len(), agreed, "{serial:?} {other:?}");
    }
    assert!(compare(host, Some("DZ-LAB-0002"), None, "the BMC").is_err());
    assert_eq!(told(Some("0000000")), None);
}

#[test]
fn a_changed_fact_makes_what_rested_on_it_unmet_and_nothing_below() {
    let mut case = Case::new();
    case.facts = testing::whole(&case.site, "host1");
    case.step();
    case.site.networks[0].mtu = 9000;
    let next = case.step();
    assert_eq!(case.phase(), Some(Condition::Wired));
    assert!(matches!(next.action, Some(Action::ApplyNetwork(..))));
    assert!(case.conditions.is_met(Condition::Imaged), "a new MTU does not install anew");
    // Applied and read back: the old proof is about another network.
    let placed = case.site.hosts().next().unwrap();
    case.facts.network_basis = Some(crate::basis(&desired::network(&case.site, &placed).unwrap()));
    let next = case.step();
    assert_eq!(case.phase(), Some(Condition::Proven));
    assert!(matches!(next.action, Some(Action::Prove(_))));
}

#[test]
fn a_proof_that_pulls_paths_does_not_undo_what_is_wired() {
    let mut case = Case::new();
    case.facts = testing::whole(&case.site, "host1");
    case.step();
    case.facts.proof = None;
    assert!(matches!(case.step().action, Some(Action::Prove(_))));
    case.busy = Some(ActionKind::Prove);
    case.facts.network.as_mut().unwrap().bond.as_mut().unwrap().legs[0].up = false;
    let next = case.step();
    assert_eq!((case.phase(), next.action), (Some(Condition::Proven), None));
}

#[test]
fn only_the_elected_host_makes_the_volume_group_and_others_wait() {
    let mut case = Case::at(Condition::Proven);
    case.around.volume_group = false;
    assert!(matches!(case.step().action, Some(Action::MakeVolumeGroup { .. })));
    case.around.elected = Some("host2".parse().unwrap());
    assert_eq!(case.step().action, None);
    assert_eq!(case.phase(), Some(Condition::Proven));
}

#[test]
fn consent_is_for_one_finding_of_one_host() {
    let mut case = Case::at(Condition::Imaged);
    let finding = DiskFinding::new(Some("DZDISK0001".into()), None, vec!["a filesystem".into()]);
    case.facts.finding = Some(finding.clone());
    case.step();
    assert_eq!(case.code(), "foreign-disk");
    let consent = |host: &str, digest| DiskConsent {
        host: host.parse::<HostName>().unwrap(),
        serial: "DZDISK0001".into(),
        finding: digest,
        given_by: "me".into(),
        given_at: NOW,
    };
    for (host, digest, installs) in
        [("host2", finding.digest, false), ("host1", Sha256([0; 32]), false), ("host1", finding.digest, true)]
    {
        case.facts.consent = Some(consent(host, digest));
        let action = case.step().action;
        assert_eq!(
            matches!(action, Some(Action::Install(ref order)) if order.consent.is_some()),
            installs,
            "{host}: {action:?}"
        );
    }
    // A retry on top of it does not take the consent's finding away: the same order is given again.
    let before = case.step().action;
    retry::retry(&mut case.facts, &case.conditions);
    assert_eq!(case.step().action, before);
    // Without a consent that fits, a retry looks at the disk anew.
    case.facts.consent = Some(consent("host1", Sha256([0; 32])));
    retry::retry(&mut case.facts, &case.conditions);
    assert_eq!(case.facts.finding, None);
}

#[test]
fn time_runs_out_once_and_what_comes_late_is_still_welcome() {
    let mut case = Case::at(Condition::Vouched);
    case.facts.window = Some(testing::window("host1"));
    case.step();
    let Some(State::Working { deadline, .. }) = case.conditions.phase().map(|record| record.state.clone())
    else {
        panic!("{:?}", case.conditions.phase())
    };
    case.now = deadline;
    let next = case.step();
    assert_eq!(case.code(), "boot-timeout");
    assert!(next.failure.is_some());
    assert_eq!(case.step().failure, None, "it fails once");
    let whole = testing::whole(&case.site, "host1");
    case.facts.vouch = whole.vouch;
    case.facts.vouch.as_mut().unwrap().at = Timestamp(case.now.0 + 1);
    case.facts.window = None;
    case.step();
    assert_eq!(case.phase(), Some(Condition::Inventoried));
}

#[test]
fn a_host_that_is_told_to_wait_for_the_link_has_its_time_again_and_not_for_ever() {
    let mut case = Case::at(Condition::Vouched);
    let mut window = testing::window("host1");
    window.script_served = Some(NOW);
    case.facts.window = Some(window);
    case.step();
    let begin = case.now;
    let told = |case: &mut Case| {
        let now = case.now;
        case.facts.window.as_mut().unwrap().told_to_wait = Some(now);
        case.step();
    };
    while case.code().starts_with("Some(Working")
        && case.now.since(begin) < dayzero_model::units::Millis(7_200_000)
    {
        case.now = case.now.plus(dayzero_model::units::Millis(100_000));
        told(&mut case);
    }
    assert_eq!(case.code(), "boot-timeout");
    let limit = crate::deadlines::limit(Condition::Vouched);
    assert_eq!(case.now.since(begin), limit, "each time anew, within the condition's limit");

    let mut case = Case::at(Condition::Vouched);
    let mut window = testing::window("host1");
    window.script_served = Some(NOW);
    case.facts.window = Some(window);
    case.step();
    case.now = NOW.plus(crate::deadlines::BOOT_HOP);
    case.step();
    assert_eq!(case.code(), "boot-timeout", "nobody told it to wait");
}

#[test]
fn half_an_hour_of_post_is_no_fault_and_hides_none_that_comes_after_it() {
    use crate::deadlines;
    use dayzero_model::boot::Chain;
    use dayzero_model::units::Millis;
    let half_an_hour = Millis(1_800_000);
    // (chain, how long the loader's transfer may take from the firmware's first question on)
    for (chain, within) in [(Chain::Ipxe, deadlines::BOOT_HOP), (Chain::Uki, deadlines::SIGNED)] {
        let powered = || {
            let mut case = Case::at(Condition::Vouched);
            let mut window = testing::window("host1");
            (window.powered, window.chain) = (Some(NOW), chain);
            case.facts.window = Some(window);
            case.step();
            case
        };
        let working = |case: &mut Case| {
            case.step();
            assert!(case.code().starts_with("Some(Working"), "{chain:?}: {}", case.code());
        };

        let mut case = powered();
        case.now = NOW.plus(half_an_hour);
        working(&mut case);
        let seen = case.now;
        case.facts.window.as_mut().unwrap().dhcp_seen = Some(seen);
        working(&mut case);
        // A boot as any other, each hop in half of its time.
        let mut pass = |within: Millis, set: fn(&mut WindowFacts, Timestamp)| {
            let now = case.now.plus(Millis(within.0 / 2));
            (case.now, _) = (now, set(case.facts.window.as_mut().unwrap(), now));
            working(&mut case);
        };
        pass(within, |window, now| window.ipxe_served = Some(now));
        pass(deadlines::BOOT_HOP, |window, now| window.script_served = Some(now));
        pass(deadlines::BOOT_HOP, |window, now| window.kernel_served = Some(now));
        pass(deadlines::KERNEL, |window, now| window.enrol_asked = Some(now));

        // The same, and its TFTP is filtered.
        let mut case = powered();
        case.now = NOW.plus(half_an_hour);
        let seen = case.now;
        case.facts.window.as_mut().unwrap().dhcp_seen = Some(seen);
        working(&mut case);
        case.now = Timestamp(seen.plus(within).0 - 1);
        working(&mut case);
        case.now = seen.plus(within);
        case.step();
        let code = case.code();
        assert_eq!(code, "boot-timeout", "{chain:?}: it is known as soon as after a short POST");
        let Some(State::Failed(cause)) = case.conditions.phase().map(|phase| &phase.state) else { panic!() };
        assert!(cause.observed.contains("asked by DHCP"), "{cause:?}");

        // Nothing was ever heard.
        let mut case = powered();
        case.now = NOW.plus(deadlines::POST);
        case.step();
        assert_eq!(case.code(), "boot-timeout");
    }
}

#[test]
fn a_retry_looks_again_where_the_host_stands() {
    for condition in Condition::ALL {
        let mut case = Case::at(condition);
        case.facts.agent = testing::whole(&case.site, "host1").agent;
        let cause = crate::cause::cause("x", "x", "x", "x", "x");
        case.facts.failure = Some(Failure { condition, cause, at: case.now });
        case.step();
        if matches!(
            condition,
            Condition::Identified
                | Condition::Baselined
                | Condition::BurnedIn
                | Condition::Matched
                | Condition::Cabled
        ) {
            continue;
        }
        assert_eq!((case.phase(), case.code().as_str()), (Some(condition), "x"));
        retry::retry(&mut case.facts, &case.conditions);
        let next = case.step();
        let working = matches!(case.conditions.phase().map(|r| &r.state), Some(State::Working { .. }));
        assert!(working || next.action.is_some(), "{condition}: {:?}", case.conditions.phase());
    }
}

/// Facts that come and go, as a real day brings them.
fn fact() -> impl Strategy<Value = (u8, bool)> {
    (0_u8..14, any::<bool>())
}

fn set(case: &mut Case, which: u8, there: bool) {
    let whole = testing::whole(&case.site, "host1");
    let facts = &mut case.facts;
    macro_rules! field {
        ($name:ident) => {
            facts.$name = if there { whole.$name } else { HostFacts::default().$name }
        };
    }
    match which {
        0 => field!(bmc),
        1 => field!(credential),
        2 => field!(vouch),
        3 => field!(inventory),
        4 => field!(agent),
        5 => field!(install),
        6 => {
            field!(boot_order_at);
            facts.started = facts.boot_order_at.and(testing::whole(&case.site, "host1").started);
        }
        7 => field!(network_basis),
        8 => field!(luns_basis),
        9 => field!(proof),
        10 => field!(capacity),
        11 => facts.window = there.then(|| testing::window("host1")),
        12 => facts.lost = there.then_some(case.now),
        _ => facts.failure = None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens: the phase is the first unmet condition, nothing behind it is worked on, each piece of work has a
    /// deadline ahead, one action at most is asked for, and it belongs to the phase.
    #[test]
    fn no_state_is_eternal_and_only_the_phase_is_worked_on(script in proptest::collection::vec((fact(), 0_u64..400_000), 1..40)) {
        let mut case = Case::new();
        for ((which, there), passes) in script {
            case.now = Timestamp(case.now.0 + passes);
            set(&mut case, which, there);
            let next = case.step();
            let phase = case.phase();
            for record in &case.conditions.0 {
                match &record.state {
                    State::Working { deadline, .. } => {
                        prop_assert_eq!(Some(record.condition), phase);
                        prop_assert!(*deadline > case.now && *deadline <= next.wake.unwrap_or(*deadline));
                        let limit = crate::deadlines::limit(record.condition);
                        prop_assert!(deadline.since(record.began.unwrap()) <= limit);
                    }
                    State::Failed(_) => prop_assert_eq!(Some(record.condition), phase),
                    State::Unmet => prop_assert!(phase.is_some_and(|phase| record.condition > phase)),
                    State::Met { .. } => {}
                }
            }
            if let Some(action) = next.action {
                prop_assert_eq!(Some(action.kind().condition()), phase);
            }
            // Deciding again at the same moment changes nothing.
            prop_assert!(case.step().changes.is_empty());
        }
    }

    /// With each action carried out, a host goes through its phases in order, never back, to the end.
    #[test]
    fn a_life_without_faults_is_monotone(pauses in proptest::collection::vec(0_u64..5_000, 30)) {
        let mut case = Case::new();
        let mut last = None;
        for pause in pauses {
            case.now = Timestamp(case.now.0 + pause);
            let next = case.step();
            let Some(phase) = case.phase() else { break };
            prop_assert!(last.is_none_or(|last| phase >= last));
            last = Some(phase);
            let whole = testing::whole(&case.site, "host1");
            let facts = &mut case.facts;
            match next.action {
                Some(action) => testing::carry_out(facts, &whole, action.kind()),
                None => testing::happen(facts, &whole, phase),
            }
        }
        case.step();
        prop_assert_eq!(case.phase(), None);
    }
}
