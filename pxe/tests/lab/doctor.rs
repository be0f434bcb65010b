//! What the doctor says of a network on which others are at work.

use std::time::Duration;

use dayzero_model::MacAddr;
use dayzero_model::event::What;
use dayzero_model::site::{DhcpMode, NetworkRole};
use dayzero_pxe::doctor::{Examination, Finding, Severity, examine};
use dayzero_pxe::{Ipv4Prefix, Ipv6Prefix, PxeConfig, ServedInterface, ServedNetwork};

use crate::clients::udhcpc;
use crate::rack::{Daemon, Rack, SERVER, must};
use crate::segments::{other_server, with_ipv6};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x21]);
/// Listens, and says nothing; no LLDP.
const SILENT: Examination = Examination {
    space: Vec::new(),
    ports: false,
    listeners: Vec::new(),
    written: Vec::new(),
    listen: Duration::from_secs(4),
    lldp: Duration::ZERO,
    ask: false,
};

/// Examines the rack's management network in the server's namespace.
fn examined(
    rack: &Rack,
    how: Examination,
    tune: impl FnOnce(&mut ServedNetwork),
) -> std::thread::JoinHandle<Vec<Finding>> {
    let prefix = Ipv4Prefix { address: SERVER, len: 24 };
    let mut network = ServedNetwork::new("mgmt".parse().unwrap(), NetworkRole::Bmc, prefix);
    tune(&mut network);
    let path = format!("/var/run/netns/{}", rack.server);
    std::thread::spawn(move || {
        use nix::sched::CloneFlags;
        let namespace = std::fs::File::open(path).unwrap();
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        // As `ip netns exec` does it: what lies beneath a device stands in sysfs.
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        use nix::mount::{MsFlags, mount};
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
        let interface = ServedInterface { device: "mgmt0".into(), address: SERVER, network };
        let config = PxeConfig { interfaces: vec![interface], ..PxeConfig::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(examine(&config, &how))
    })
}

#[track_caller]
fn about<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings.iter().find(|f| f.check == check).unwrap_or_else(|| panic!("nothing of {check}: {findings:#?}"))
}

#[test]
#[ignore = "needs root, dnsmasq-base"]
fn the_doctor_hears_another_dhcp_server() {
    let rack = Rack::new(&[]);
    let _other = other_server(&rack, "dnsmasq");
    let how = Examination { lldp: Duration::ZERO, ..Examination::default() };
    let findings = examined(&rack, how, |_| ()).join().unwrap();
    let other = about(&findings, "other-dhcp");
    assert_eq!(other.severity, Severity::Fault, "{findings:?}");
    assert!(other.found.contains("10.77.0.66") && !other.action.is_empty(), "{other:?}");
    let port = about(&findings, "port");
    assert!(port.found.contains("67 is taken"), "our own server has it: {port:?}");
}

#[test]
#[ignore = "needs root, dnsmasq-base, busybox-static"]
fn the_doctor_hears_another_server_without_a_word() {
    let rack = Rack::tuned(&[], |config| config.interfaces[0].network.mode = DhcpMode::Off);
    let _other = other_server(&rack, "dnsmasq");
    rack.second_port(&format!("link set address {MAC}"));
    let doctor = examined(&rack, SILENT, |_| ());
    // Somebody's DHCP client, some time while it listens: its choice is broadcast.
    while !doctor.is_finished() {
        let (ok, said) = udhcpc(&rack, "two", "");
        assert!(ok, "{said}");
    }
    let findings = doctor.join().unwrap();
    let other = about(&findings, "other-dhcp");
    assert!(other.severity == Severity::Fault && other.found.contains("10.77.0.66"), "{findings:?}");
    assert_eq!(rack.director.count(|_| true), 0, "ours was off, and nobody made up a client");
}

/// The site's PXE server: it says what to boot, to firmware alone, and gives no addresses.
fn proxy_server(rack: &Rack) -> Daemon {
    must(&format!("ip -n {} addr add 10.77.0.66/24 dev mgmt", rack.client));
    let mut daemon = rack.daemon(
        "dnsmasq -d -C /dev/null --port=0 -i mgmt --log-dhcp --dhcp-range=10.77.0.0,proxy \
         --pxe-service=x86PC,theirs,theirs --pxe-service=X86-64_EFI,theirs,theirs.efi --dhcp-leasefile=proxy",
    );
    daemon.says("DHCP, proxy on subnet");
    daemon
}

fn boots(network: &mut ServedNetwork) {
    network.role = NetworkRole::Management;
}

#[test]
#[ignore = "needs root, dnsmasq-base"]
fn the_doctor_finds_a_server_that_answers_firmware_alone() {
    let rack = Rack::new(&[]);
    let proxy = proxy_server(&rack);
    let how = || Examination { ask: true, ..SILENT };
    let findings = examined(&rack, how(), boots).join().unwrap();
    let other = about(&findings, "other-proxy-dhcp");
    assert!(other.severity == Severity::Fault && other.found.contains("10.77.0.66"), "{other:?}");
    assert!(other.found.contains("(PXE by BIOS, PXE by UEFI)") && other.action.contains("PXE"), "{other:?}");
    assert_eq!(
        about(&findings, "other-dhcp").severity,
        Severity::Good,
        "it gives no addresses: {findings:?}"
    );
    let heard = |what: &What| matches!(what, What::DhcpIn { .. });
    assert_eq!(rack.director.count(heard), 0, "no machine was made up for us:\n{}", rack.director.show());

    let beside = |network: &mut ServedNetwork| {
        boots(network);
        network.mode = DhcpMode::Proxy;
    };
    let findings = examined(&rack, how(), beside).join().unwrap();
    assert_eq!(about(&findings, "other-proxy-dhcp").severity, Severity::Fault, "{findings:?}");
    let missing = about(&findings, "other-dhcp");
    assert_eq!(missing.severity, Severity::Fault, "nobody gives addresses: {missing:?}");

    drop(proxy);
    let findings = examined(&rack, how(), boots).join().unwrap();
    assert!(findings.iter().all(|finding| finding.check != "other-proxy-dhcp"), "{findings:?}");
}

#[test]
#[ignore = "needs root, dnsmasq-base, busybox-static"]
fn the_doctor_hears_a_server_of_boot_files_without_a_word() {
    let rack = Rack::tuned(&[], |config| config.interfaces[0].network.mode = DhcpMode::Off);
    let _proxy = proxy_server(&rack);
    rack.second_port(&format!("link set address {MAC}"));
    let doctor = examined(&rack, SILENT, boots);
    // Somebody's firmware, some time while it listens, that asks for answers by broadcast and gets no address.
    let firmware = "-B -V PXEClient:Arch:00007:UNDI:003016 -x 0x5d:0007 \
                    -x 0x61:0000000000000000000000525400770021";
    while !doctor.is_finished() {
        let (ok, said) = udhcpc(&rack, "two", firmware);
        assert!(!ok, "nobody gives addresses: {said}");
    }
    let findings = doctor.join().unwrap();
    let other = about(&findings, "other-proxy-dhcp");
    assert!(other.severity == Severity::Fault && other.found.contains("10.77.0.66"), "{findings:?}");
    assert_eq!(about(&findings, "other-dhcp").severity, Severity::Good, "{findings:?}");
}

/// Somebody's IPv6: dnsmasq's DHCPv6 server and router advertisements.
#[test]
#[ignore = "needs root, dnsmasq-base"]
fn the_doctor_finds_another_dhcpv6_server_and_another_router() {
    // Ours serves there, too.
    let rack = Rack::tuned(&[], with_ipv6);
    let ns = &rack.client;
    for (ns, device) in [(ns, "mgmt"), (&rack.server, "mgmt0")] {
        must(&format!(
            "for i in $(seq 100); do
               ip -n {ns} -6 addr show dev {device} scope link | grep inet6 | grep -qv tentative && exit; sleep 0.1
             done; exit 1"
        ));
    }
    must(&format!("ip -n {ns} addr add fd66::66/64 dev mgmt nodad"));
    let planned = |network: &mut ServedNetwork| {
        network.prefix6 = Some(Ipv6Prefix { address: "fd77::".parse().unwrap(), len: 64 });
    };
    let how = || Examination { ask: true, ..SILENT };
    let alone = examined(&rack, how(), planned).join().unwrap();
    for check in ["other-dhcp6", "other-router"] {
        assert_eq!(about(&alone, check).severity, Severity::Good, "our own is no other: {alone:?}");
    }

    let mut other = rack.daemon(
        "dnsmasq -d -C /dev/null --port=0 -i mgmt --enable-ra --ra-param=mgmt,4,1200 \
         --dhcp-range=fd66::100,fd66::1ff,64,1h --dhcp-leasefile=six",
    );
    other.says("DHCPv6, IP range fd66::100");
    let start = std::time::Instant::now();
    let findings = examined(&rack, how(), planned).join().unwrap();
    assert!(start.elapsed() < SILENT.listen + Duration::from_secs(2), "all is asked at once");
    let server = about(&findings, "other-dhcp6");
    assert!(server.severity == Severity::Fault && server.found.contains("offers fd66::1"), "{findings:?}");
    let router = about(&findings, "other-router");
    assert_eq!(router.severity, Severity::Warning, "{findings:?}");
    for part in
        ["another router, fe80::", "prefix fd66::/64, flags M and O, itself as default route for 1200 s"]
    {
        assert!(router.found.contains(part), "{part:?} of {router:?}");
    }
    assert!(router.action.contains("fd77::/64"), "{router:?}");

    // Where the plan has no IPv6, and where another gives the addresses.
    let findings = examined(&rack, how(), |_| ()).join().unwrap();
    assert_eq!(about(&findings, "other-dhcp6").severity, Severity::Warning, "{findings:?}");
    let findings = examined(&rack, how(), |network| network.mode = DhcpMode::Proxy).join().unwrap();
    assert_eq!(about(&findings, "other-dhcp6").severity, Severity::Good, "{findings:?}");
    assert_eq!(about(&findings, "other-router").severity, Severity::Good, "{findings:?}");

    // Without a word: whatever its interval, dnsmasq advertises itself each 5 to 20 s in its first minute.
    let silent = Examination { listen: Duration::from_secs(23), ..SILENT };
    let findings = examined(&rack, silent, planned).join().unwrap();
    assert!(about(&findings, "other-router").found.contains("fd66::/64"), "{findings:?}");
    assert!(findings.iter().all(|finding| finding.check != "other-dhcp6"), "nobody was asked: {findings:?}");
}

/// The client's namespace is the switch: the kernel's spanning tree, and lldpd.
#[test]
#[ignore = "needs root, lldpd, busybox-static"]
fn the_doctor_hears_the_switch_and_asks_the_gateway() {
    let rack = Rack::new(&[]);
    let (ns, dir) = (&rack.client, rack.dir.path().display());
    must(&format!(
        "ip -n {ns} link add sw type bridge stp_state 1 forward_delay 200
         ip -n {ns} link set mgmt master sw; ip -n {ns} addr add 10.77.0.1/24 dev sw; ip -n {ns} link set sw up
         mkdir -p /run/lldpd"
    ));
    // Its port is no edge port: it forwards after two forward delays.
    let forwards = format!("ip netns exec {} busybox ping -c 1 -W 1 10.77.0.1", rack.server);
    must(&format!("for i in $(seq 30); do {forwards} && exit; done; exit 1"));
    let lldpd = rack.daemon(&format!("lldpd -d -c -I mgmt -u {dir}/lldpd.socket -S switch"));
    let how = || Examination { listen: Duration::ZERO, ask: true, lldp: Duration::from_secs(31), ..SILENT };
    let gateway =
        |last: u8| move |network: &mut ServedNetwork| network.gateway = Some([10, 77, 0, last].into());
    let findings = examined(&rack, how(), gateway(1)).join().unwrap();
    let neighbour = about(&findings, "lldp");
    assert!(
        neighbour.severity == Severity::Good && neighbour.found.starts_with("p-mgmt is on "),
        "{neighbour:?}"
    );
    assert!(neighbour.found.contains(", port mgmt") || neighbour.found.ends_with("(mgmt)"), "{neighbour:?}");
    let tree = about(&findings, "edge-port");
    assert!(tree.severity == Severity::Warning && tree.found.contains("802.1D"), "{tree:?}");
    assert_eq!(about(&findings, "gateway").severity, Severity::Good, "{findings:?}");
    drop(lldpd);

    // The switch is silent, and the gateway is not there.
    must(&format!("ip -n {ns} link set sw type bridge stp_state 0"));
    let short = Examination { lldp: Duration::from_secs(6), ..how() };
    let findings = examined(&rack, short, gateway(250)).join().unwrap();
    assert_eq!(about(&findings, "lldp").severity, Severity::Warning, "{findings:?}");
    assert!(findings.iter().all(|finding| finding.check != "edge-port"), "{findings:?}");
    assert_eq!(about(&findings, "gateway").severity, Severity::Warning, "{findings:?}");
}

/// Two ports beneath the interface; at the other end of one, somebody switches his off.
#[test]
#[ignore = "needs root"]
fn the_doctor_tells_a_port_without_a_link() {
    let rack = Rack::new(&[]);
    rack.second_port(&format!("link set address {MAC}"));
    let how = || Examination { listen: Duration::ZERO, lldp: Duration::from_secs(2), ..SILENT };
    let of = |findings: &[Finding], check: &str| -> Vec<String> {
        let about = findings.iter().filter(|finding| finding.check == check);
        about.map(|f| format!("{:?} {} -> {}", f.severity, f.found, f.action)).collect()
    };
    let both = examined(&rack, how(), |_| ()).join().unwrap();
    let links = of(&both, "link");
    for port in ["p-mgmt", "p-two"] {
        assert!(links.contains(&format!("Good its port {port} has a link -> ")), "{links:?}");
    }
    assert_eq!(of(&both, "lldp").len(), 2, "both are silent: {both:?}");

    must(&format!("ip -n {} link set two down", rack.client));
    let one = examined(&rack, how(), |_| ()).join().unwrap();
    let links = of(&one, "link");
    let dead = "Warning its port p-two has no carrier -> plug in its cable, or enable the switch port";
    assert!(links.iter().any(|link| link == dead), "{links:?}");
    let lldp = of(&one, "lldp");
    assert!(lldp.len() == 1 && lldp[0].contains("p-mgmt"), "LLDP is no remedy for p-two: {lldp:?}");

    must(&format!("ip -n {} link set p-two down", rack.server));
    let down = of(&examined(&rack, how(), |_| ()).join().unwrap(), "link");
    let told = "Warning its port p-two is down -> ip link set p-two up";
    assert!(down.iter().any(|link| link == told), "{down:?}");
}

/// The client's namespace is a switch with rapid spanning tree: Open vSwitch in user space, with daemons of its own.
#[test]
#[ignore = "needs root, openvswitch-switch"]
fn the_doctor_tells_an_edge_port_from_one_that_waits() {
    let rack = Rack::new(&[]);
    let own = "env OVS_RUNDIR=$PWD OVS_LOGDIR=$PWD OVS_DBDIR=$PWD";
    let made = rack.client("ovsdb-tool create conf.db /usr/share/openvswitch/vswitch.ovsschema");
    assert!(made.status.success(), "{made:?}");
    let mut database =
        rack.daemon(&format!("{own} ovsdb-server conf.db --remote=punix:$PWD/db.sock -vconsole:info"));
    database.says("ovsdb-server (Open vSwitch)");
    let vsctl = |command: &str| {
        let done = rack.client(&format!("{own} ovs-vsctl --db=unix:$PWD/db.sock -t 60 {command}"));
        assert!(done.status.success(), "{command}: {done:?}");
    };
    vsctl("--no-wait init");
    let switch = format!("{own} ovs-vswitchd unix:$PWD/db.sock --disable-system -vconsole:info");
    let mut switch = rack.daemon(&switch);
    switch.says("ovs-vswitchd (Open vSwitch)");
    vsctl("add-br sw -- set bridge sw datapath_type=netdev rstp_enable=true");
    let how = || Examination { listen: Duration::ZERO, lldp: Duration::from_secs(10), ..SILENT };
    // A link that comes up, at a port that is told, and not left to find out, that a switch may be there.
    vsctl("add-port sw mgmt -- set port mgmt other_config:rstp-port-auto-edge=false");
    let waits = examined(&rack, how(), |_| ()).join().unwrap();
    let finding = about(&waits, "edge-port");
    assert!(finding.severity == Severity::Fault && finding.found.contains("does not forward"), "{finding:?}");
    assert!(finding.action.contains("edge ports"), "{finding:?}");
    vsctl("del-port sw mgmt");
    vsctl("add-port sw mgmt -- set port mgmt other_config:rstp-port-auto-edge=true");
    vsctl("wait-until port mgmt rstp_status:rstp_port_state=Forwarding");
    let edge = examined(&rack, how(), |_| ()).join().unwrap();
    let finding = about(&edge, "edge-port");
    assert!(finding.severity == Severity::Good && finding.found.contains("the port forwards"), "{finding:?}");
}
