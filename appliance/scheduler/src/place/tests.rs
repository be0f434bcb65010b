use super::*;
use crate::{Policy, Thresholds, Usage};
use dayzero_model::site::Failover;
use proptest::prelude::*;

fn policy() -> Policy {
    let thresholds = Thresholds { cpu_percent: 100, memory_percent: 100, storage_percent: 85 };
    Policy {
        cpu_overcommit_percent: 200,
        thresholds,
        vms_per_host: 4,
        failover: Failover::NMinusOne,
        vm_cap: None,
    }
}

fn host(name: &str, cpu: u64, memory: u64) -> HostView {
    HostView {
        name: name.parse().unwrap(),
        cpu: Mhz(cpu),
        memory: MebiBytes(memory),
        used: Usage::default(),
        closed: None,
    }
}

fn storage(name: &str, mib: u64) -> StorageView {
    StorageView { name: name.parse().unwrap(), size: Bytes(mib << 20), used: Bytes(0) }
}

fn cluster(policy: Policy, hosts: Vec<HostView>) -> ClusterView {
    ClusterView::new("kvm1".parse().unwrap(), policy, hosts, vec![storage("lun0", 4096)])
}

fn request(memory: u64) -> Request {
    Request {
        cpus: 1,
        mhz: Mhz(500),
        memory: MebiBytes(memory),
        disk: Bytes(64 << 20),
        storage: None,
        avoid: Vec::new(),
    }
}

#[test]
fn the_tightest_host_takes_it_and_ties_go_by_name() {
    let cluster = cluster(policy(), vec![host("c", 2000, 900), host("b", 2000, 700), host("a", 2000, 700)]);
    for (memory, expected) in [(256, "a"), (700, "a"), (701, "c")] {
        assert_eq!(place(&cluster, &request(memory)).unwrap().host.as_str(), expected, "{memory} MiB");
    }
    insta::assert_snapshot!(place(&cluster, &request(256)).unwrap().why, @"tightest fit by memory: 444 of 700 MiB stay free; CPU 500 of 4000 MHz, VM 1 of 4 on the host, 1 of 8 in the cluster; lun0: 64 MiB of 4 GiB");
}

#[test]
fn each_refusal_names_its_inequality() {
    let mut full = host("b", 100, 2000);
    full.used = Usage { cpu: Mhz(0), memory: MebiBytes(1500), vms: 4 };
    let closed = HostView { closed: Some("in maintenance".into()), ..host("c", 9000, 9000) };
    let hosts = vec![host("a", 9000, 100), full, closed];
    let refused = |cluster: &ClusterView, request: &Request| place(cluster, request).unwrap_err().to_string();
    let mut lines = vec![refused(&cluster(policy(), hosts.clone()), &request(512))];
    lines.push(refused(&cluster(Policy { vm_cap: Some(4), ..policy() }, hosts.clone()), &request(16)));
    lines.push(refused(&cluster(policy(), vec![host("a", 9000, 9000)]), &request(16)));
    let strict = Policy { thresholds: Thresholds::default(), failover: Failover::None, ..policy() };
    lines.push(refused(&cluster(strict, vec![host("a", 100, 1000)]), &request(851)));
    lines.push(refused(&cluster(policy(), hosts.clone()), &Request { disk: Bytes(4 << 30), ..request(16) }));
    lines.push(refused(
        &cluster(policy(), hosts.clone()),
        &Request { storage: Some("lun9".parse().unwrap()), ..request(16) },
    ));
    lines.push(refused(
        &cluster(Policy { failover: Failover::None, ..policy() }, vec![host("a", 9000, 9000)]),
        &Request { avoid: vec!["a".parse().unwrap()], ..request(16) },
    ));
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_cap_counts_all_members_and_what_lost_ones_hold() {
    let mut lost = host("b", 9000, 9000);
    (lost.closed, lost.used.vms) = (Some("lost".into()), 4);
    let mut cluster = cluster(policy(), vec![host("a", 9000, 9000), lost]);
    assert_eq!(cluster.vm_cap(), 4, "(2-1) x 4");
    let refusal = place(&cluster, &request(16)).unwrap_err();
    assert_eq!(refusal.reasons.iter().map(|one| one.resource).collect::<Vec<_>>(), [Resource::ClusterVms]);
    let (b, lun) = ("b".parse().unwrap(), "lun0".parse().unwrap());
    cluster.release(&b, Some(&lun), &request(16)).unwrap();
    assert_eq!(place(&cluster, &request(16)).unwrap().host.as_str(), "a");
}

#[test]
fn the_fullest_storage_with_room_is_taken() {
    let stores = vec![storage("big", 4096), storage("small", 1024), storage("tiny", 64)];
    let cluster =
        ClusterView::new("k".parse().unwrap(), policy(), [host("a", 9000, 9000), host("b", 1, 1)], stores);
    let stored = |request: &Request| place(&cluster, request).unwrap().storage.unwrap().to_string();
    assert_eq!(stored(&request(16)), "small", "64 MiB is above 85 % of tiny");
    assert_eq!(stored(&Request { storage: Some("big".parse().unwrap()), ..request(16) }), "big");
}

#[test]
fn an_unknown_host_or_storage_takes_nothing() {
    let mut cluster = cluster(policy(), vec![host("a", 9000, 9000)]);
    let (a, z) = ("a".parse().unwrap(), "z".parse().unwrap());
    assert!(cluster.reserve(&z, None, &request(16)).is_err());
    assert!(cluster.reserve(&a, Some(&z), &request(16)).is_err());
    assert_eq!((cluster.vms(), cluster.host(&a).unwrap().used), (0, Usage::default()));
}

fn any_hosts() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    proptest::collection::vec((0_u64..8000, 0_u64..4096, proptest::bool::weighted(0.1)), 0..12)
}

fn any_requests() -> impl Strategy<Value = Vec<(u32, u64, u64, u64)>> {
    proptest::collection::vec((1_u32..5, 1_u64..1000, 1_u64..1024, 0_u64..512), 1..40)
}

fn build(hosts: &[(u64, u64, bool)], reversed: bool) -> ClusterView {
    let mut views: Vec<HostView> = hosts
        .iter()
        .enumerate()
        .map(|(i, (cpu, memory, closed))| HostView {
            closed: closed.then(|| "lost".to_owned()),
            ..host(&format!("h{i}"), *cpu, *memory)
        })
        .collect();
    if reversed {
        views.reverse();
    }
    let policy = Policy { thresholds: Thresholds::default(), ..policy() };
    cluster(policy, views)
}

/// What must hold after any number of placements.
fn assert_within(cluster: &ClusterView) {
    for host in cluster.hosts() {
        assert!(host.used.memory <= host.memory, "{host:?}");
        assert!(host.used.cpu <= host.cpu_capacity(cluster.policy()), "{host:?}");
        assert!(host.used.vms <= cluster.policy().vms_per_host, "{host:?}");
    }
    let (held, capacity) = (cluster.held(), cluster.capacity());
    assert!(held.0.0 * 100 <= capacity.0.0 * 85 && held.1.0 * 100 <= capacity.1.0 * 85);
    assert!(cluster.vms() <= cluster.vm_cap());
    for store in cluster.storage() {
        assert!(store.used.0 * 100 <= store.size.0 * 85, "{store:?}");
    }
}

proptest! {
    #[test]
    fn never_over_capacity_deterministic_and_every_refusal_is_real(hosts in any_hosts(), requests in any_requests()) {
        let (mut one, mut other) = (build(&hosts, false), build(&hosts, true));
        let mut placed = Vec::new();
        for (cpus, mhz, memory, mib) in requests {
            let request = Request { cpus, mhz: Mhz(mhz), disk: Bytes(mib << 20), ..request(memory) };
            let answer = place(&one, &request);
            prop_assert_eq!(&answer, &place(&other, &request), "the order of arrival of hosts changes nothing");
            match answer {
                Ok(to) => {
                    prop_assert!(one.host(&to.host).unwrap().closed.is_none());
                    one.reserve(&to.host, to.storage.as_ref(), &request).unwrap();
                    other.reserve(&to.host, to.storage.as_ref(), &request).unwrap();
                    assert_within(&one);
                    placed.push((to, request));
                }
                Err(refusal) => {
                    let hosts = refusal.hosts.iter().flat_map(|host| &host.reasons);
                    let stores = refusal.storage.iter().filter_map(|(_, reason)| reason.as_ref());
                    for inequality in refusal.reasons.iter().chain(stores).chain(hosts) {
                        prop_assert!(inequality.fails(), "{inequality}");
                    }
                    for host in &refusal.hosts {
                        prop_assert!(host.closed.is_some() || !host.reasons.is_empty(), "{}", host.host);
                    }
                    let all = refusal.hosts.len() == one.hosts().len();
                    prop_assert!(all || !refusal.reasons.is_empty() || !refusal.storage.is_empty());
                }
            }
        }
        for (to, request) in placed {
            one.release(&to.host, to.storage.as_ref(), &request).unwrap();
        }
        prop_assert_eq!((one.vms(), one.held()), (0, (Mhz(0), MebiBytes(0))), "all that was taken is given back");
    }

    #[test]
    fn the_index_finds_what_a_plain_search_finds(hosts in any_hosts(), memory in 1_u64..4096) {
        let cluster = build(&hosts, false);
        let request = request(memory);
        let plain = cluster
            .hosts()
            .filter(|host| host_refusal(&cluster, host, &request).is_none())
            .min_by_key(|host| (host.free_memory(), host.name.clone()));
        if let Ok(placement) = place(&cluster, &request) {
            prop_assert_eq!(Some(&placement.host), plain.map(|host| &host.name));
        }
    }
}
