//! Faults of a network boot, each made for real, and what the flight recorder says of it; the recording, judged by tshark.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use dayzero_model::MacAddr;
use dayzero_model::boot::Client;
use dayzero_model::event::{Ignored, TftpFault, What};
use dayzero_model::site::AddressRange;
use dayzero_pxe::{LeasePool, PxeEvent};

use crate::clients::{sent, udhcpc};
use crate::machine::{Firmware, Machine};
use crate::machines::PATIENCE;
use crate::rack::{Rack, host, must};
use crate::segments::other_server;

/// A TFTP or HTTP client that falls silent is given up after twenty to thirty seconds.
const GIVEN_UP: Duration = Duration::from_secs(60);
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x31]);
pub(crate) const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 31);
/// What a UEFI machine says of itself.
pub(crate) const PXE: &str = "-V PXEClient:Arch:00007:UNDI:003016 -x 0x5d:0007";

/// The planned host's NIC is the clients' device on the management network.
pub(crate) fn planned(files: &[(&str, PathBuf)]) -> Rack {
    let rack = Rack::new(files);
    rack.director.clients.lock().unwrap().insert(MAC, host(A, true));
    rack.become_client("mgmt", MAC);
    rack
}

/// Drops what arrives at a device of a namespace and fits, before anything sees it.
pub(crate) fn drop_at(namespace: &str, device: &str, fits: &str) {
    must(&format!(
        "ip netns exec {namespace} nft -f - <<'END'
table netdev fault {{
  chain in {{
    type filter hook ingress device {device} priority 0;
    {fits} drop
  }}
}}
END"
    ));
}

pub(crate) fn ignored(fits: impl Fn(&Ignored) -> bool) -> impl Fn(&PxeEvent) -> bool {
    move |event| matches!(&event.what, What::DhcpIgnored { why, .. } if fits(why))
}

#[track_caller]
pub(crate) fn verdict(rack: &Rack, mac: MacAddr, rule: &str) {
    let found = rack.director.why(mac);
    let first = found.first().map(|finding| finding.rule);
    assert_eq!(first, Some(rule), "{found:#?}\n{}", rack.director.show());
}

#[test]
#[ignore = "needs root, busybox-static, nftables"]
fn a_request_that_never_comes() {
    let rack = planned(&[]);
    // Option 53 is the first that udhcpc writes: 8 octets of UDP, 236 fixed ones, the cookie.
    drop_at(&rack.server, "p-mgmt", "udp dport 67 @th,1984,24 0x350103");
    let (ok, said) = udhcpc(&rack, "mgmt", "");
    assert!(!ok, "{said}");
    rack.director.wait("OFFER", SOON, sent("OFFER"));
    verdict(&rack, MAC, "no-request-after-offer");
}

/// A UUID without the octet of its type, and an architecture of one octet: both are seen in firmware.
#[test]
#[ignore = "needs root, busybox-static"]
fn a_client_whose_datagrams_break_the_rules() {
    for (wrong, says) in [
        ("-x 0x61:00112233445566778899aabbccddeeff", "option 97 has 16 bytes"),
        ("-x 0x5d:07", "option 93 has 1 bytes"),
    ] {
        let rack = planned(&[]);
        let powered = rack.director.now();
        let (ok, said) = udhcpc(&rack, "mgmt", &format!("-V PXEClient:Arch:00007:UNDI:003016 {wrong}"));
        assert!(!ok, "{said}");
        rack.director.wait("the reason", SOON, ignored(|why| *why == Ignored::Malformed));
        verdict(&rack, MAC, "malformed-dhcp");
        for lacp in [true, false] {
            let found = rack.director.why_powered_at(powered, MAC, true, lacp);
            let [one] = found.as_slice() else { panic!("it asked: {found:#?}") };
            assert!(one.rule == "malformed-dhcp" && one.sentence.contains(says), "{one:?}");
        }
        assert!(!rack.director.pcapng(MAC).is_empty());
    }
}

/// A frame to a client's MAC passes no firewall of ours; what is broadcast does.
#[test]
#[ignore = "needs root, busybox-static, nftables"]
fn an_answer_that_cannot_leave() {
    let rack = planned(&[]);
    must(&format!(
        "ip netns exec {} nft 'add table inet f; add chain inet f o {{ type filter hook output priority 0; }}; add rule inet f o udp sport 67 drop'",
        rack.server
    ));
    let (ok, said) = udhcpc(&rack, "mgmt", "-B");
    assert!(!ok, "{said}");
    let unsent = |e: &PxeEvent| matches!(&e.what, What::DhcpUnsent { kind, error, .. } if kind == "OFFER" && error.contains("Operation not permitted"));
    rack.director.wait("what the kernel said", SOON, unsent);
    verdict(&rack, MAC, "answer-not-sent");
    let blamed = rack.director.why(MAC).iter().any(|finding| finding.rule == "no-request-after-offer");
    assert!(!blamed, "{}", rack.director.show());

    must(&format!("ip netns exec {} nft delete table inet f", rack.server));
    let (ok, said) = udhcpc(&rack, "mgmt", "-B");
    assert!(ok, "{said}");
    assert!(!rack.director.why(MAC).iter().any(|finding| finding.rule == "answer-not-sent"));
}

#[test]
#[ignore = "needs root, busybox-static, dnsmasq-base, nftables"]
fn another_server_is_chosen() {
    let rack = Rack::new(&[]);
    rack.director.clients.lock().unwrap().insert(MAC, host(A, true));
    let ns = &rack.client;
    rack.second_port(&format!("link set address {MAC}"));
    let _other = other_server(&rack, "dnsmasq");
    // Ours comes too late.
    drop_at(ns, "two", "ip saddr 10.77.0.2 udp sport 67");
    let (ok, said) = udhcpc(&rack, "two", "");
    assert!(ok && said.contains("server=10.77.0.66"), "{said}");
    let chosen = Ipv4Addr::new(10, 77, 0, 66);
    rack.director.wait("choice", SOON, ignored(|why| *why == Ignored::OtherServer { address: chosen }));
    verdict(&rack, MAC, "other-dhcp-server");
}

#[test]
#[ignore = "needs root, busybox-static"]
fn somebody_has_the_hosts_address() {
    let rack = planned(&[]);
    rack.second_port(&format!("addr add {A}/24"));
    udhcpc(&rack, "mgmt", PXE);
    rack.director.wait(
        "conflict",
        SOON,
        ignored(|why| matches!(why, Ignored::InUse { address, .. } if *address == A)),
    );
    verdict(&rack, MAC, "address-in-use");

    // The client looks itself, and declines.
    rack.become_client("mgmt", MAC);
    // It begins anew after each DECLINE, without end.
    let udhcpc = rack.daemon(&format!("busybox udhcpc -f -t 3 -T 1 -a1000 -i mgmt -s /bin/true {PXE}"));
    let declined = ignored(|why| matches!(why, Ignored::Declined { address } if *address == A));
    rack.director.wait("DECLINE", SOON, declined);
    drop(udhcpc);
    let rule = rack.director.verdict(MAC);
    assert!(["declined", "address-in-use"].contains(&rule), "{rule}");
}

#[test]
#[ignore = "needs root, busybox-static"]
fn a_client_that_answers_no_arp() {
    let rack = planned(&[]);
    let (ok, said) = udhcpc(&rack, "mgmt", PXE);
    assert!(ok, "{said}");
    let (server, ns) = (&rack.server, &rack.client);
    must(&format!(
        "mac=$(ip -n {server} -br link show mgmt0 | awk '{{print $3}}')
         ip -n {server} neigh flush dev mgmt0
         ip -n {ns} link set mgmt arp off
         ip -n {ns} neigh replace 10.77.0.2 lladdr $mac dev mgmt nud permanent"
    ));
    let tftp = rack.daemon("busybox tftp -g -r snponly.efi -l got 10.77.0.2");
    rack.director.wait(
        "silence",
        GIVEN_UP,
        |e| matches!(e.what, What::ArpSilent { address } if address == A),
    );
    drop(tftp);
    verdict(&rack, MAC, "arp-silent");
}

#[test]
#[ignore = "needs root, busybox-static, nftables, tshark"]
fn a_tftp_transfer_stops_after_block_7_and_wireshark_shows_it() {
    let rack = planned(&[]);
    let (ok, said) = udhcpc(&rack, "mgmt", PXE);
    assert!(ok, "{said}");
    // TFTP's DATA (3) of a block beyond 7.
    drop_at(&rack.client, "mgmt", "udp sport > 1023 @th,64,16 3 @th,80,16 > 7");
    must(&format!(
        "ip netns exec {} nft 'add table inet f; add chain inet f o {{ type filter hook output priority 0; }}; add rule inet f o icmp type destination-unreachable drop'",
        rack.client
    ));
    let tftp = rack.daemon("busybox tftp -g -b 1024 -r snponly.efi -l got 10.77.0.2");
    rack.director.wait("silence", GIVEN_UP, |event| {
        matches!(event.what, What::TftpBroken { fault: TftpFault::Silent, after_block: 7, bytes: 7168, .. })
    });
    drop(tftp);
    verdict(&rack, MAC, "tftp-stopped");

    let file = rack.dir.path().join("host1.pcapng");
    std::fs::write(&file, rack.director.pcapng(MAC)).unwrap();
    let tshark = |arguments: &str| must(&format!("tshark -r {} {arguments} 2>/dev/null", file.display()));
    let lines = tshark("-T fields -e frame.protocols -e dhcp.option.dhcp -e tftp.opcode -e tftp.block");
    let all: Vec<&str> = lines.lines().collect();
    for (protocols, kind) in [
        ("raw:ip:udp:dhcp", "1"),
        ("raw:ip:udp:dhcp", "2"),
        ("raw:ip:udp:dhcp", "3"),
        ("raw:ip:udp:dhcp", "5"),
    ] {
        let there =
            all.iter().any(|line| line.starts_with(protocols) && line.split('\t').nth(1) == Some(kind));
        assert!(there, "no DHCP message {kind}:\n{lines}");
    }
    assert!(all.iter().any(|line| line.starts_with("eth:ethertype:arp")), "no ARP probe:\n{lines}");
    let tftp = |opcode: &str, block: &str| {
        all.iter()
            .filter(|line| line.contains("tftp") && line.ends_with(&format!("\t{opcode}\t{block}")))
            .count()
    };
    assert_eq!(tftp("1", ""), 1, "RRQ:\n{lines}");
    assert_eq!(tftp("6", ""), 1, "OACK:\n{lines}");
    assert!(tftp("3", "8") >= 2, "block 8 was sent again and again:\n{lines}");
    assert_eq!(tshark("-Y '_ws.malformed || ip.checksum.status == Bad'"), "", "tshark finds fault with it");
    let twice = [rack.director.pcapng(MAC), rack.director.pcapng(MAC)].concat();
    std::fs::write(&file, twice).unwrap();
    assert_eq!(tshark("").lines().count(), 2 * all.len(), "sections one after another are a file");
}

#[test]
#[ignore = "needs root, curl, nftables"]
fn http_answers_that_are_refused_or_stall() {
    let scratch = tempfile::tempdir().unwrap();
    let large = scratch.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(64 << 20).unwrap();
    let rack = planned(&[("initrd.img", large)]);
    let (ok, said) = udhcpc(&rack, "mgmt", PXE);
    assert!(ok, "{said}");
    let at = "http://10.77.0.2:8080/boot";
    must(&format!("ip netns exec {} curl -sf -o /dev/null '{at}/script?mac={MAC}'", rack.client));
    rack.client(&format!("curl -s -o none {at}/file/vmlinuz-of-yesterday"));
    rack.director.wait("404", SOON, |e| matches!(e.what, What::HttpFile { status: 404, .. }));
    verdict(&rack, MAC, "http-refused");

    must(&format!("ip netns exec {} curl -sf -o /dev/null {at}/file/vmlinuz", rack.client));
    drop_at(&rack.client, "mgmt", "tcp sport 8080 quota over 2 mbytes");
    let curl = rack.daemon(&format!("curl -s -o got {at}/file/initrd.img"));
    rack.director.wait("stall", GIVEN_UP, |e| matches!(&e.what, What::HttpBroken { path, length: 67_108_864, .. } if path.ends_with("initrd.img")));
    drop(curl);
    verdict(&rack, MAC, "http-stalled");
}

#[test]
#[ignore = "needs root, busybox-static"]
fn a_client_that_never_asks_for_its_loader() {
    let rack = planned(&[]);
    let (ok, said) = udhcpc(&rack, "mgmt", PXE);
    assert!(ok, "{said}");
    rack.director.wait("ACK", SOON, sent("ACK"));
    verdict(&rack, MAC, "loader-not-asked");
}

/// A port of a LAG without fallback has a link and forwards nothing until LACP is spoken: so does a bridge port that is held
/// in listening.
#[test]
#[ignore = "needs root, busybox-static"]
fn a_port_that_waits_for_lacp() {
    let rack = planned(&[]);
    must(&format!("ip netns exec {} bridge link set dev p-mgmt state 1", rack.server));
    let link = || {
        let carrier = rack.client("cat /sys/class/net/mgmt/carrier").stdout;
        String::from_utf8_lossy(&carrier).trim() == "1"
    };
    let first = |link, lacp| rack.director.why_powered(MAC, link, lacp).first().map(|finding| finding.rule);
    let (ok, said) = udhcpc(&rack, "mgmt", PXE);
    assert!(!ok && rack.director.count(|_| true) == 0, "{said}\n{}", rack.director.show());
    assert_eq!(first(link(), true), Some("lacp-without-fallback"));
    assert_eq!(first(link(), false), Some("no-dhcp"));
    must(&format!("ip -n {} link set p-mgmt down", rack.server));
    assert_eq!(first(link(), true), Some("no-link"));
}

#[test]
#[ignore = "needs root, busybox-static"]
fn machines_that_dhcp_refuses() {
    let one = AddressRange { first: Ipv4Addr::new(10, 77, 100, 50), last: Ipv4Addr::new(10, 77, 100, 50) };
    let rack = Rack::tuned(&[], |config| {
        let guest = config.interfaces.iter_mut().find(|i| i.device == "guest0").unwrap();
        guest.network.pool = Some(LeasePool { range: one, open: true });
        config.loaders.uefi_x64 = None;
    });
    let (ok, said) = udhcpc(&rack, "guest", "");
    assert!(ok, "{said}");
    rack.become_client("guest", MAC);
    let (ok, said) = udhcpc(&rack, "guest", "");
    assert!(!ok, "{said}");
    verdict(&rack, MAC, "pool-used-up");

    let other = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x32]);
    rack.become_client("mgmt", other);
    udhcpc(&rack, "mgmt", PXE);
    verdict(&rack, other, "dhcp-not-answered");
    let bmc = Client::Bmc { host: "host1".parse().unwrap(), address: A };
    rack.director.clients.lock().unwrap().insert(other, bmc);
    udhcpc(&rack, "mgmt", PXE);
    verdict(&rack, other, "wrong-network");
    rack.director.clients.lock().unwrap().insert(other, host(A, true));
    udhcpc(&rack, "mgmt", PXE);
    verdict(&rack, other, "no-loader");
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf"]
fn a_loader_of_another_architecture() {
    let rack = Rack::tuned(&[], |config| config.loaders.uefi_x64 = Some("undionly.kpxe".into()));
    rack.director.clients.lock().unwrap().insert(MAC, host(A, true));
    let _machine = Machine::start(&rack, Firmware::Uefi, MAC, None);
    let wrong = |e: &PxeEvent| matches!(&e.what, What::WrongLoader { file, made_for, .. } if file == "undionly.kpxe" && made_for == "BIOS");
    rack.director.wait("wrong loader", PATIENCE, wrong);
    verdict(&rack, MAC, "wrong-architecture");
}
