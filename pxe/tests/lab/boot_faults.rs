//! Faults of a boot that show only with a real machine, or come from what is served: each made for real, with what the
//! flight recorder says of it. Those between a client and us are in `faults`.

use std::time::{Duration, Instant};

use dayzero_model::MacAddr;
use dayzero_model::boot::{BootAction, Chain, Client};
use dayzero_model::event::{Ignored, What};
use dayzero_model::facts::HostFacts;
use dayzero_model::site::DhcpMode;
use dayzero_pxe::PxeEvent;

use crate::clients::{sent, udhcpc};
use crate::faults::{A, MAC, PXE, SOON, drop_at, ignored, planned, verdict};
use crate::machine::{Firmware, Machine, disk};
use crate::machines::{PATIENCE, ended};
use crate::rack::{Daemon, Director, Rack, host, must};
use crate::segments::other_server;

/// The port of a machine with [`MAC`].
const PORT: &str = "t31";
/// What QEMU's firmware says that it is.
const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

/// A filter at a device: `hook` is `ingress` for what arrives there, `egress` for what leaves.
fn hold(namespace: &str, device: &str, hook: &str, fits: &str) {
    must(&format!(
        "ip netns exec {namespace} nft -f - <<'END'
table netdev held {{
  chain at {{
    type filter hook {hook} device {device} priority 0;
    {fits} counter drop
  }}
}}
END"
    ));
}

fn lift(namespace: &str) {
    must(&format!("ip netns exec {namespace} nft delete table netdev held"));
}

/// Waits until the filter has dropped so many packets.
#[track_caller]
fn drops(rack: &Rack, least: u64) {
    let counted = || {
        let rules = must(&format!("ip netns exec {} nft list table netdev held", rack.server));
        let count = rules.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        count.and_then(|count| count.parse::<u64>().ok()).expect("a counter")
    };
    reaches(rack, "dropped packets", counted, least);
}

/// Waits until a count is reached.
#[track_caller]
fn reaches(rack: &Rack, what: &str, count: impl Fn() -> u64, least: u64) {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = count();
        if now >= least {
            return;
        }
        assert!(Instant::now() < end, "{now} {what}, not {least}:\n{}", rack.director.show());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn scripts(director: &Director) -> u64 {
    director.count(|what| matches!(what, What::Script { .. })) as u64
}

fn is_script_told(event: &PxeEvent) -> bool {
    matches!(&event.what, What::DhcpOut { kind, file: Some(file), .. } if kind == "ACK" && file.contains("/boot/script"))
}

/// A host of the plan, changed.
fn plan(rack: &Rack, mac: MacAddr, window: bool, change: impl FnOnce(&mut Option<String>, &mut Chain)) {
    let Client::Host { host, address, window, mut uuid, mut chain } = host(A, window) else { unreachable!() };
    change(&mut uuid, &mut chain);
    let client = Client::Host { host, address, window, uuid, chain };
    rack.director.clients.lock().unwrap().insert(mac, client);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, nftables"]
fn our_loader_gets_no_script_then_no_kernel_then_one_that_is_none() {
    // What this rack serves as a kernel is text.
    let rack = Rack::new(&[]);
    plan(&rack, MAC, true, |_, _| ());
    let mut machine = Machine::start(&rack, Firmware::Bios, MAC, None);
    let director = &rack.director;
    hold(&rack.server, PORT, "ingress", "tcp dport 8080");
    director.wait("its script's name", PATIENCE, is_script_told);
    drops(&rack, 2);
    verdict(&rack, MAC, "script-not-asked");
    assert_eq!(director.why_in(Duration::ZERO, MAC, None), [], "it may still come");

    // The filter closes again with the script's request inside.
    let namespace = rack.server.clone();
    let again = move || hold(&namespace, PORT, "ingress", "tcp dport 8080");
    *director.on_script.lock().unwrap() = Some(Box::new(again));
    lift(&rack.server);
    let discovery =
        |e: &PxeEvent| matches!(&e.what, What::Script { action: BootAction::Discovery { .. }, .. });
    director.wait("script", PATIENCE, discovery);
    machine.says("/boot/file/vmlinuz", PATIENCE, || director.show());
    drops(&rack, 3);
    verdict(&rack, MAC, "kernel-not-fetched");
    assert_eq!(director.why_in(Duration::ZERO, MAC, None), [], "it may still come");

    lift(&rack.server);
    reaches(&rack, "scripts", || scripts(director), 3);
    let now = director.why_in(Duration::ZERO, MAC, None);
    let found =
        now.first().map(|finding| (finding.rule, finding.sentence.contains("asked for its script 3 times")));
    assert_eq!(found, Some(("kernel-not-fetched", true)), "{now:#?}\n{}", director.show());
}

/// The site's server, which gives addresses, names our loader to everybody, our loader too; and its switches pass no
/// DHCP answer of ours, since our port is none that they trust.
#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, dnsmasq-base, nftables"]
fn our_loader_is_told_to_load_our_loader() {
    let rack = Rack::tuned(&[], |config| config.interfaces[0].network.mode = DhcpMode::Proxy);
    plan(&rack, MAC, true, |_, _| ());
    let _site = site_that_names(&rack, "undionly.kpxe,appliance,10.77.0.2");
    let _machine = Machine::start(&rack, Firmware::Bios, MAC, None);
    hold(&rack.server, PORT, "egress", "ip saddr 10.77.0.2 udp sport { 67, 4011 }");
    let whole =
        |what: &What| matches!(what, What::TftpEnd { file, error: None, .. } if file == "undionly.kpxe");
    reaches(&rack, "loaders", || rack.director.count(whole) as u64, 2);
    let rules: Vec<_> = rack.director.why(MAC).into_iter().map(|finding| finding.rule).collect();
    assert!(!rules.contains(&"ipxe-loop"), "twice may be a reset: {rules:?}");
    reaches(&rack, "loaders", || rack.director.count(whole) as u64, 3);
    drops(&rack, 3);
    verdict(&rack, MAC, "ipxe-loop");
}

fn site_that_names(rack: &Rack, file: &str) -> Daemon {
    let (ns, dir) = (&rack.client, rack.dir.path().display());
    must(&format!("ip -n {ns} addr add 10.77.0.66/24 dev mgmt"));
    let command = format!(
        "dnsmasq -d -C /dev/null --port=0 -i mgmt --no-ping --dhcp-range=10.77.0.100,10.77.0.110 \
         --dhcp-leasefile={dir}/other --dhcp-boot={file}"
    );
    let mut daemon = rack.daemon(&command);
    daemon.says("DHCP, IP range");
    daemon
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios"]
fn a_loader_that_is_no_program() {
    // Larger than what iPXE would start without looking.
    let text = "This is no program.\n".repeat(40_000);
    let rack = Rack::tuned(&[], |config| {
        config.tftp.insert("undionly.kpxe".into(), text.into_bytes().into());
    });
    plan(&rack, MAC, true, |_, _| ());
    let mut machine = Machine::start(&rack, Firmware::Bios, MAC, None);
    rack.director.wait("the whole file", PATIENCE, ended("undionly.kpxe"));
    machine.says("Exec format error", PATIENCE, || rack.director.show());
    verdict(&rack, MAC, "loader-not-started");
}

/// The rules that `why` finds in a host whose window is closed.
fn rules_of_closed(rack: &Rack) -> Vec<&'static str> {
    let facts = HostFacts::default();
    let found = rack.director.why_in(Duration::ZERO, MAC, Some(&facts));
    found.into_iter().map(|finding| finding.rule).collect()
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, grub-efi-amd64-bin, gdisk, mtools, dosfstools"]
fn firmware_that_boots_from_the_network_before_its_disk() {
    let rack = Rack::new(&[]);
    plan(&rack, MAC, false, |_, _| ());
    let disk = disk(rack.dir.path());
    for (boot, rules) in [(1, vec![]), (2, vec!["network-first"])] {
        let mut machine = Machine::start(&rack, Firmware::Bios, MAC, Some(&disk));
        reaches(&rack, "scripts", || scripts(&rack.director), boot);
        machine.says("DISKBOOT-BIOS", PATIENCE, || rack.director.show());
        assert_eq!(rules_of_closed(&rack), rules, "boot {boot}:\n{}", rack.director.show());
        rack.director.an_hour_later();
    }
}

/// Firmware that takes nothing unsigned, and an appliance that has nothing signed; then the same firmware, when no boot is
/// open and it asks all the same.
#[test]
#[ignore = "needs root, qemu-system-x86, ovmf"]
fn under_secure_boot_there_is_nothing_signed_and_then_nothing_to_boot() {
    let rack = Rack::new(&[]);
    let director = &rack.director;
    let secure = |window| plan(&rack, MAC, window, |_, chain| *chain = Chain::Uki);
    let none = |director: &Director| {
        director.count(|what| matches!(what, What::DhcpIgnored { why: Ignored::NoWindow, .. })) as u64
    };
    secure(true);
    let machine = Machine::start(&rack, Firmware::UefiSecure, MAC, None);
    director.wait("what is missing", PATIENCE, ignored(|why| *why == Ignored::NothingSigned));
    verdict(&rack, MAC, "nothing-signed");
    drop(machine);
    secure(false);
    for (boot, rules) in [(1, vec![]), (2, vec!["network-first"])] {
        director.an_hour_later();
        let before = none(director);
        let mut machine = Machine::start(&rack, Firmware::UefiSecure, MAC, None);
        reaches(&rack, "questions without need", || none(director), before + 1);
        // It gives the NIC up, and goes on to what it has left.
        machine.says("No bootable option", PATIENCE, || director.show());
        assert_eq!(rules_of_closed(&rack), rules, "boot {boot}:\n{}", director.show());
    }
    let taken = director.count(|what| matches!(what, What::DhcpIn { kind, .. } if kind == "REQUEST"));
    assert_eq!(taken, 0, "firmware takes no offer without a file:\n{}", director.show());
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios"]
fn another_machine_has_the_hosts_nic() {
    let rack = Rack::new(&[]);
    let director = &rack.director;
    plan(&rack, MAC, true, |uuid, _| *uuid = Some("6c1d5a30-7f0e-4b6e-9a51-0d2b1c000001".into()));
    let machine = Machine::start(&rack, Firmware::Bios, MAC, None);
    director.wait("another machine", PATIENCE, ignored(|why| *why == Ignored::OtherMachine));
    director.wait("its address", PATIENCE, sent("ACK"));
    verdict(&rack, MAC, "other-machine");
    assert!(director.show().contains(UUID), "the plan can be corrected by it:\n{}", director.show());
    drop(machine);
    plan(&rack, MAC, true, |uuid, _| *uuid = Some(UUID.into()));
    let _machine = Machine::start(&rack, Firmware::Bios, MAC, None);
    director.wait("loader", PATIENCE, ended("undionly.kpxe"));
    let rules: Vec<_> = director.why(MAC).into_iter().map(|finding| finding.rule).collect();
    assert!(!rules.contains(&"other-machine"), "{rules:?}");
}

#[test]
#[ignore = "needs root, busybox-static"]
fn a_machine_of_ours_on_a_network_without_a_pool() {
    let rack = Rack::tuned(&[], |config| {
        let guest = config.interfaces.iter_mut().find(|i| i.device == "guest0").unwrap();
        guest.network.pool = None;
    });
    let vm = Client::Vm { name: "hello".parse().unwrap(), address: None };
    rack.director.clients.lock().unwrap().insert(MAC, vm);
    rack.become_client("guest", MAC);
    let (ok, said) = udhcpc(&rack, "guest", "");
    assert!(!ok, "{said}");
    rack.director.wait("silence", SOON, ignored(|why| *why == Ignored::NoPool));
    verdict(&rack, MAC, "no-pool");
}

/// Somebody answers the client for its address, and we do not hear it.
#[test]
#[ignore = "needs root, busybox-static, nftables"]
fn a_client_declines_its_address() {
    let rack = planned(&[]);
    let server = &rack.server;
    rack.second_port(&format!("addr add {A}/24"));
    let ours = must(&format!("ip -n {server} -br link show mgmt0 | awk '{{print $3}}'"));
    hold(server, "p-two", "ingress", &format!("arp operation reply ether daddr {}", ours.trim()));
    let udhcpc = rack.daemon("busybox udhcpc -f -t 3 -T 1 -a1000 -i mgmt -s /bin/true");
    let declined = ignored(|why| matches!(why, Ignored::Declined { address } if *address == A));
    rack.director.wait("DECLINE", SOON, declined);
    drop(udhcpc);
    drops(&rack, 1);
    verdict(&rack, MAC, "declined");
}

/// Firmware of before RFC 4578 names no architecture; an operating system's DHCP client is none.
#[test]
#[ignore = "needs root, busybox-static"]
fn firmware_that_names_no_architecture_has_asked() {
    let rack = planned(&[]);
    let powered = rack.director.now();
    let first = || rack.director.why_powered_at(powered, MAC, true, false).first().map(|found| found.rule);
    let (ok, said) = udhcpc(&rack, "mgmt", "");
    assert!(ok, "{said}");
    assert_eq!(first(), Some("no-dhcp"), "{}", rack.director.show());
    let old = |what: &What| matches!(what, What::DhcpIn { arch: None, vendor_class: Some(class), .. } if class.starts_with("PXEClient"));
    let (ok, said) = udhcpc(&rack, "mgmt", "-V PXEClient");
    assert!(ok, "{said}");
    assert!(rack.director.count(old) > 0, "{}", rack.director.show());
    assert_eq!(first(), Some("loader-not-asked"), "{}", rack.director.show());
}

/// Another server gives the address: its ACK is the client's alone, and what is seen here is our offer and the REQUEST.
#[test]
#[ignore = "needs root, busybox-static, dnsmasq-base, nftables"]
fn beside_another_server_a_client_never_asks_for_its_loader() {
    let rack = Rack::tuned(&[], |config| config.interfaces[0].network.mode = DhcpMode::Proxy);
    plan(&rack, MAC, true, |_, _| ());
    let ns = &rack.client;
    rack.second_port(&format!("link set address {MAC}"));
    let _other = other_server(&rack, "dnsmasq");
    // udhcpc knows no proxyDHCP, and would take our offer for one of an address.
    drop_at(ns, "two", "ip saddr 10.77.0.2 udp sport 67");
    let (ok, said) = udhcpc(&rack, "two", PXE);
    assert!(ok && said.contains("server=10.77.0.66"), "{said}");
    let chose = |event: &PxeEvent| matches!(&event.what, What::DhcpIn { kind, .. } if kind == "REQUEST");
    rack.director.wait("its choice", SOON, chose);
    verdict(&rack, MAC, "loader-not-asked");
}
