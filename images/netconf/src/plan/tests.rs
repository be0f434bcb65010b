//! A small model of the kernel carries plans out, with the kernel's own refusals, so that order is tested and a second
//! plan can be asked for.

use super::*;
use crate::observed::{Address, Leg, Rule};
use crate::report::describe;
use dayzero_model::ids::MacAddr;
use proptest::prelude::*;

fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0x77, 1, n])
}

fn nic(index: u32, n: u8) -> Link {
    Link {
        index,
        name: format!("eth{}", n - 1),
        mac: Some(mac(n)),
        permanent: Some(mac(n)),
        up: false,
        carrier: false,
        mtu: 1500,
        master: None,
        parent: None,
        speed: None,
        kind: LinkKind::Physical,
        leg: None,
    }
}

fn bare_host() -> Observed {
    let mut lo = nic(1, 1);
    (lo.name, lo.kind, lo.mac, lo.permanent, lo.mtu) =
        ("lo".to_owned(), LinkKind::Loopback, None, None, 65_536);
    let mut observed = Observed { links: vec![lo], ..Observed::default() };
    observed.links.extend((1..=4).map(|n| nic(u32::from(n) + 1, n)));
    for link in &observed.links {
        for (path, _) in
            [sysctl::rp_filter(&link.name), sysctl::accept_ra(&link.name), sysctl::no_ipv6(&link.name)]
        {
            observed.sysctls.insert(path, "0".to_owned());
        }
    }
    observed.sysctls.extend(sysctl::EVERYWHERE.map(|(path, _)| (path.to_owned(), "0".to_owned())));
    observed.rules.push(Rule { priority: 0, from: None, table: 255 });
    observed.rules.push(Rule { priority: 32_766, from: None, table: 254 });
    observed
}

fn wanted(mode: BondMode) -> HostNetwork {
    let monitor = match mode {
        BondMode::Lacp => BondMonitor::Mii { interval_ms: 100 },
        BondMode::ActiveBackup => {
            BondMonitor::Arp { interval_ms: 200, missed_max: 2, target: "10.77.0.1".parse().unwrap() }
        }
    };
    let storage = |n: u8, net: u8| StorageLink {
        mac: mac(n),
        network: format!("storage-{n}").parse().unwrap(),
        address: format!("10.77.{net}.21/24").parse().unwrap(),
        gateway: Some(Ipv4Addr::new(10, 77, net, 1)),
        mtu: 9000,
        table: 100 + u32::from(net),
    };
    HostNetwork {
        bond: BondSpec { name: "bond0".to_owned(), mode, legs: vec![mac(1), mac(2)], mtu: 1500, monitor },
        management: "10.77.0.11/24".parse().unwrap(),
        gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
        bridges: vec![BridgeSpec {
            name: "br-guest".to_owned(),
            network: "guest".parse().unwrap(),
            vlan: 100,
            mtu: 1500,
        }],
        storage: vec![storage(3, 11), storage(4, 12)],
    }
}

/// What the kernel does with an operation, or why it refuses.
fn carry_out(observed: &mut Observed, op: &Op) -> Result<(), String> {
    let find = |observed: &Observed, name: &str| {
        observed.links.iter().position(|link| link.name == name).ok_or(format!("no link {name}"))
    };
    let next = observed.links.iter().map(|link| link.index).max().unwrap_or(0) + 1;
    let fresh = |observed: &mut Observed, name: &str, kind: LinkKind| {
        if find(observed, name).is_ok() {
            return Err(format!("{name} exists"));
        }
        let mut link = nic(next, 1);
        (link.name, link.kind, link.permanent) = (name.to_owned(), kind, None);
        for (path, _) in [sysctl::rp_filter(name), sysctl::accept_ra(name), sysctl::no_ipv6(name)] {
            observed.sysctls.entry(path).or_insert_with(|| "0".to_owned());
        }
        observed.links.push(link);
        Ok(())
    };
    match op {
        Op::Sysctl { path, value } => {
            let known = observed.sysctls.get_mut(path).ok_or(format!("no {path}"))?;
            known.clone_from(value);
        }
        Op::SetSpeed { link, mbit } => {
            let at = find(observed, link)?;
            observed.links[at].speed = Some(u32::from(*mbit));
        }
        Op::CreateBond { link, mac, settings } => {
            fresh(observed, link, LinkKind::Bond(Bond { settings: settings.clone(), ..Bond::default() }))?;
            let at = find(observed, link)?;
            observed.links[at].mac = Some(*mac);
        }
        Op::CreateVlan { link, parent, id } => {
            let parent = observed.links[find(observed, parent)?].index;
            fresh(observed, link, LinkKind::Vlan(*id))?;
            let at = find(observed, link)?;
            observed.links[at].parent = Some(parent);
        }
        Op::CreateBridge { link } => {
            fresh(observed, link, LinkKind::Bridge { stp: false, forward_delay: 0 })?;
        }
        Op::DeleteLink { link, .. } => {
            let index = observed.links.remove(find(observed, link)?).index;
            delete(observed, index);
        }
        Op::SetBond { link, settings } => {
            let at = find(observed, link)?;
            let LinkKind::Bond(bond) = &mut observed.links[at].kind else { return Err("no bond".to_owned()) };
            if bond.settings.mode != settings.mode {
                return Err("mode of a bond with legs".to_owned());
            }
            bond.settings = settings.clone();
        }
        Op::SetBridge { link } => {
            let at = find(observed, link)?;
            observed.links[at].kind = LinkKind::Bridge { stp: false, forward_delay: 0 };
        }
        Op::SetPrimary { link, leg } => {
            let (at, leg) = (find(observed, link)?, find(observed, leg)?);
            if observed.links[leg].master != Some(observed.links[at].index) {
                return Err("primary is no leg".to_owned());
            }
            let index = observed.links[leg].index;
            let LinkKind::Bond(bond) = &mut observed.links[at].kind else { return Err("no bond".to_owned()) };
            bond.primary = Some(index);
        }
        Op::SetMac { link, mac } => {
            let at = find(observed, link)?;
            observed.links[at].mac = Some(*mac);
        }
        Op::SetMtu { link, mtu } => {
            let at = find(observed, link)?;
            observed.links[at].mtu = *mtu;
        }
        Op::Down { link } => set_up(observed, link, false)?,
        Op::Up { link } => set_up(observed, link, true)?,
        Op::Enslave { link, master } => enslave(observed, link, master)?,
        Op::Release { link } => {
            let at = find(observed, link)?;
            observed.links[at].master.take().ok_or("has no master")?;
        }
        Op::AddAddress { link, address } => {
            let at = find(observed, link)?;
            let link = observed.links[at].index;
            observed.addresses.push(Address { link, address: *address });
        }
        Op::DelAddress { link, address } => {
            let link = observed.links[find(observed, link)?].index;
            observed.addresses.retain(|a| (a.link, a.address) != (link, *address));
            observed.routes.retain(|route| route.source != Some(address.addr()));
        }
        Op::AddRoute(route) => {
            let link = &observed.links[find(observed, &route.link)?];
            if !link.up {
                return Err(format!("network is down: {route}"));
            }
            let index = link.index;
            if let Some(gateway) = route.gateway
                && !observed.addresses.iter().any(|a| a.link == index && a.address.contains(&gateway))
            {
                return Err(format!("gateway is unreachable: {route}"));
            }
            let RouteSpec { table, to, gateway, source, metric, .. } = route.clone();
            let link = Some(index);
            observed.routes.push(Route { table, to, gateway, link, source, metric, by_kernel: false });
        }
        Op::DelRoute(route) => {
            let link = Some(observed.links[find(observed, &route.link)?].index);
            observed.routes.retain(|r| {
                (r.table, r.to, r.gateway, r.link) != (route.table, route.to, route.gateway, link)
            });
        }
        Op::AddRule(rule) => {
            observed.rules.push(Rule { priority: rule.priority, from: rule.from, table: rule.table });
        }
        Op::DelRule(rule) => observed.rules.retain(|r| r.priority != rule.priority || r.from != rule.from),
    }
    Ok(())
}

fn delete(observed: &mut Observed, index: u32) {
    observed.addresses.retain(|address| address.link != index);
    observed.routes.retain(|route| route.link != Some(index));
    for link in &mut observed.links {
        if link.master == Some(index) {
            (link.master, link.leg) = (None, None);
        }
    }
    while let Some(at) = observed.links.iter().position(|link| link.parent == Some(index)) {
        let above = observed.links.remove(at).index;
        delete(observed, above);
    }
}

fn set_up(observed: &mut Observed, name: &str, up: bool) -> Result<(), String> {
    let link = observed.links.iter_mut().find(|link| link.name == name).ok_or(format!("no link {name}"))?;
    (link.up, link.carrier) = (up, up);
    let index = link.index;
    if !up {
        observed.routes.retain(|route| route.link != Some(index));
    }
    Ok(())
}

fn enslave(observed: &mut Observed, name: &str, master: &str) -> Result<(), String> {
    let master = observed.by_name(master).ok_or(format!("no master {master}"))?.clone();
    let link = observed.links.iter_mut().find(|link| link.name == name).ok_or(format!("no link {name}"))?;
    if link.master.is_some() {
        return Err(format!("{name} is a port already"));
    }
    match &master.kind {
        LinkKind::Bond(bond) => {
            if link.up {
                return Err(format!("{name} is up"));
            }
            if bond.settings.mode == "802.3ad" && link.speed.is_none() {
                return Err(format!("{name} has no speed"));
            }
            (link.up, link.carrier, link.mtu, link.mac) = (true, true, master.mtu, master.mac);
            let forwarding = Leg { mii_up: true, aggregator: Some(1), actor: 0x3f, partner: 0x3f };
            link.leg = Some(forwarding);
        }
        LinkKind::Bridge { .. } => {}
        _ => return Err(format!("{} takes no ports", master.name)),
    }
    link.master = Some(master.index);
    Ok(())
}

fn all(observed: &mut Observed, plan: &Plan) {
    for op in &plan.ops {
        if let Err(refusal) = carry_out(observed, op) {
            panic!("the kernel refuses '{op}': {refusal}\nplan: {:#?}", texts(plan));
        }
    }
}

fn texts(plan: &Plan) -> Vec<String> {
    plan.ops.iter().map(ToString::to_string).collect()
}

/// Plans and carries out until nothing is left; at most the passes that `converge` makes.
fn settle(observed: &mut Observed, wanted: &HostNetwork) {
    for _ in 0..3 {
        let plan = Plan::new(observed, wanted);
        if plan.ops.is_empty() {
            return;
        }
        all(observed, &plan);
    }
    panic!("still to do after three passes: {:#?}", texts(&Plan::new(observed, wanted)));
}

#[test]
fn a_bare_host_is_wired_in_one_pass_and_then_left_alone() {
    for mode in [BondMode::Lacp, BondMode::ActiveBackup] {
        let (mut observed, wanted) = (bare_host(), wanted(mode));
        let plan = Plan::new(&observed, &wanted);
        all(&mut observed, &plan);
        let again = Plan::new(&observed, &wanted);
        assert_eq!(again, Plan::default(), "{mode:?}: {:#?}", texts(&again));
        let report = describe(&observed, &wanted);
        assert!(report.converged, "{:?}", report.problems);
        assert_eq!(report.bond.unwrap().legs.len(), 2);
    }
}

#[test]
fn the_order_is_the_kernels() {
    insta::assert_snapshot!(texts(&Plan::new(&bare_host(), &wanted(BondMode::Lacp))).join("\n"), @r"
    set net/ipv4/conf/all/arp_ignore to 1
    set net/ipv4/conf/all/arp_announce to 2
    make bond bond0, 802.3ad
    set the MTU of bond0 to 1500
    set the speed of eth0 to 1000 Mbit/s
    take eth0 down
    make eth0 a port of bond0
    set the speed of eth1 to 1000 Mbit/s
    take eth1 down
    make eth1 a port of bond0
    bring bond0 up
    set net/ipv6/conf/bond0/accept_ra to 0
    add 10.77.0.11/24 to bond0
    add route 0.0.0.0/0 via 10.77.0.1 dev bond0 table 254
    make bridge br-guest
    make bond0.100: VLAN 100 on bond0
    set the MTU of bond0.100 to 1500
    make bond0.100 a port of br-guest
    set the MTU of br-guest to 1500
    set net/ipv6/conf/bond0.100/disable_ipv6 to 1
    bring bond0.100 up
    set net/ipv6/conf/br-guest/disable_ipv6 to 1
    bring br-guest up
    set net/ipv4/conf/eth2/rp_filter to 2
    set the MTU of eth2 to 9000
    bring eth2 up
    add 10.77.11.21/24 to eth2
    add route 10.77.11.0/24 dev eth2 src 10.77.11.21 table 111
    add route 0.0.0.0/0 via 10.77.11.1 dev eth2 src 10.77.11.21 table 111
    add rule 10111: from 10.77.11.21/32 lookup 111
    set net/ipv4/conf/eth3/rp_filter to 2
    set the MTU of eth3 to 9000
    bring eth3 up
    add 10.77.12.21/24 to eth3
    add route 10.77.12.0/24 dev eth3 src 10.77.12.21 table 112
    add route 0.0.0.0/0 via 10.77.12.1 dev eth3 src 10.77.12.21 table 112
    add rule 10112: from 10.77.12.21/32 lookup 112
    ");
}

#[test]
fn another_mode_replaces_the_bond_and_what_lies_above() {
    let mut observed = bare_host();
    settle(&mut observed, &wanted(BondMode::Lacp));
    let backup = wanted(BondMode::ActiveBackup);
    let plan = Plan::new(&observed, &backup);
    let texts = texts(&plan);
    assert_eq!(texts[0], "delete bond0: mode is 802.3ad, wanted active-backup");
    assert!(texts.contains(&"make bond0.100: VLAN 100 on bond0".to_owned()), "{texts:#?}");
    settle(&mut observed, &backup);
    assert!(describe(&observed, &backup).converged);
}

#[test]
fn a_changed_timer_changes_the_bond_in_place() {
    let mut observed = bare_host();
    let mut network = wanted(BondMode::ActiveBackup);
    settle(&mut observed, &network);
    network.bond.monitor =
        BondMonitor::Arp { interval_ms: 500, missed_max: 3, target: "10.77.0.1".parse().unwrap() };
    assert_eq!(texts(&Plan::new(&observed, &network)), ["change the settings of bond bond0"]);
    settle(&mut observed, &network);
    network.bond.monitor = BondMonitor::Mii { interval_ms: 250 };
    assert_eq!(texts(&Plan::new(&observed, &network)), ["change the settings of bond bond0"]);
    settle(&mut observed, &network);
}

#[test]
fn a_missing_leg_is_a_problem_and_the_rest_is_made() {
    let mut observed = bare_host();
    observed.links.retain(|link| link.permanent != Some(mac(2)));
    let network = wanted(BondMode::Lacp);
    settle(&mut observed, &network);
    let report = describe(&observed, &network);
    assert!(!report.converged);
    insta::assert_snapshot!(report.problems.join("\n"), @"bond bond0: its leg 52:54:00:77:01:02 is no NIC of this host, which has 52:54:00:77:01:01, 52:54:00:77:01:03, 52:54:00:77:01:04");
    assert_eq!(report.bond.unwrap().legs.len(), 1);
}

#[test]
fn a_leg_out_of_the_active_aggregator_is_not_usable() {
    let mut observed = bare_host();
    let network = wanted(BondMode::Lacp);
    settle(&mut observed, &network);
    let bond = observed.links.iter().position(|link| link.name == "bond0").unwrap();
    let set = |observed: &mut Observed, partner, aggregator| {
        let LinkKind::Bond(bond) = &mut observed.links[bond].kind else { panic!("no bond") };
        (bond.partner, bond.aggregator) = (partner, aggregator);
    };
    let usable = |observed: &Observed| {
        describe(observed, &network).bond.unwrap().legs.iter().map(|leg| leg.usable).collect::<Vec<_>>()
    };
    assert_eq!(usable(&observed), [false, false], "no partner");
    set(&mut observed, Some(mac(99)), Some(1));
    assert_eq!(usable(&observed), [true, true]);
    let leg = observed.links.iter().position(|link| link.name == "eth1").unwrap();
    let good = observed.links[leg].leg.clone().unwrap();
    for bad in [
        Leg { aggregator: Some(2), ..good.clone() },
        Leg { actor: 0x1f, ..good.clone() },
        Leg { actor: 0x7f, ..good.clone() },
        Leg { partner: 0x0f, ..good.clone() },
        Leg { mii_up: false, ..good.clone() },
    ] {
        observed.links[leg].leg = Some(bad.clone());
        assert_eq!(usable(&observed), [true, false], "{bad:?}");
    }
}

#[test]
fn foreign_links_are_named_left_alone_and_refused_where_they_overlap() {
    let mut observed = bare_host();
    let network = wanted(BondMode::Lacp);
    settle(&mut observed, &network);
    let mut docker = nic(90, 9);
    (docker.name, docker.kind) = ("docker0".to_owned(), LinkKind::Bridge { stp: true, forward_delay: 1500 });
    observed.links.push(docker);
    observed.addresses.push(Address { link: 90, address: "172.17.0.1/16".parse().unwrap() });
    let mut tap = nic(91, 10);
    (tap.name, tap.kind) = ("vnet0".to_owned(), LinkKind::Tap);
    tap.master = observed.by_name("br-guest").map(|link| link.index);
    observed.links.push(tap);
    assert_eq!(Plan::new(&observed, &network), Plan::default());
    assert_eq!(describe(&observed, &network).foreign, ["docker0 (bridge 52:54:00:77:01:09, down)"]);

    observed.addresses.push(Address { link: 90, address: "10.77.11.200/25".parse().unwrap() });
    let plan = Plan::new(&observed, &network);
    assert!(plan.ops.is_empty());
    assert_eq!(
        plan.problems,
        [
            "docker0 is not in the plan and has the address 10.77.11.200/25, inside the planned prefix 10.77.11.0/24: \
          remove it or plan it"
        ]
    );
}

#[test]
fn lacp_with_arp_monitoring_is_refused() {
    let mut network = wanted(BondMode::Lacp);
    network.bond.monitor = wanted(BondMode::ActiveBackup).bond.monitor;
    let plan = Plan::new(&bare_host(), &network);
    assert!(plan.problems[0].contains("cannot use ARP monitoring"), "{:?}", plan.problems);
    assert!(!texts(&plan).iter().any(|op| op.contains("make bond")));
}

/// One way in which somebody may have meddled with a host's network.
fn meddle(observed: &mut Observed, how: u8, which: u8) {
    let count = observed.links.len();
    let at = usize::from(which) % count;
    let index = observed.links[at].index;
    let name = observed.links[at].name.clone();
    match how % 10 {
        0 => observed.links[at].mtu = 1400,
        1 => {
            let _ = set_up(observed, &name, false);
        }
        2 => observed.addresses.retain(|address| address.link != index),
        3 => observed.addresses.push(Address { link: index, address: "192.0.2.7/24".parse().unwrap() }),
        4 => observed.routes.retain(|route| route.link != Some(index)),
        5 => {
            observed.rules.retain(|rule| rule.priority < RULES_FROM || rule.table % 2 == u32::from(which) % 2)
        }
        6 => observed.rules.push(Rule { priority: RULES_FROM + 77, from: None, table: 177 }),
        7 if observed.links[at].kind != LinkKind::Physical && name != "lo" => {
            observed.links.remove(at);
            delete(observed, index);
        }
        8 => {
            if let LinkKind::Bridge { stp, .. } = &mut observed.links[at].kind {
                *stp = true;
            }
        }
        9 => {
            if let LinkKind::Bond(bond) = &mut observed.links[at].kind {
                bond.settings.miimon = 7;
            }
            if observed.links[at].leg.is_some() {
                (observed.links[at].master, observed.links[at].leg) = (None, None);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn whatever_was_meddled_with_comes_back(
        lacp in any::<bool>(),
        meddling in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..8),
    ) {
        let network = wanted(if lacp { BondMode::Lacp } else { BondMode::ActiveBackup });
        let mut observed = bare_host();
        settle(&mut observed, &network);
        for (how, which) in meddling {
            meddle(&mut observed, how, which);
        }
        settle(&mut observed, &network);
        let report = describe(&observed, &network);
        prop_assert!(report.converged, "{:?}", report.problems);
    }
}
