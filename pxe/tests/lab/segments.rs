//! More than one network and one server: relays, another DHCP server beside ours, somebody at a client's address, names.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use dayzero_model::MacAddr;
use dayzero_model::boot::{BootAction, Client};
use dayzero_model::event::{Ignored, What};
use dayzero_model::site::{AddressRange, DhcpMode, NetworkRole};
use dayzero_pxe::{
    Ipv4Prefix, Ipv6Prefix, Lease, LeaseChange, LeasePool, LeaseStore, LeaseStoreError, NameZone, PxeConfig,
    PxeEvent, ServedNetwork,
};

use crate::clients::{sent, udhcpc};
use crate::machine::{Firmware, Machine};
use crate::machines::{PATIENCE, images};
use crate::rack::{Daemon, GUESTS, NEAR, Rack, SERVER, host, must};

const SOON: Duration = Duration::from_secs(20);
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x21]);
pub(crate) const RELAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// A relay that the plan does not know.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 7);

/// A network behind a relay that stands in the clients' namespace, with a namespace of its own beyond.
struct Far {
    rack: Rack,
    namespace: String,
    _relay: Daemon,
}

pub(crate) fn far_network(config: &mut PxeConfig) {
    let prefix = Ipv4Prefix { address: RELAY, len: 24 };
    let range = AddressRange { first: Ipv4Addr::new(10, 88, 0, 50), last: Ipv4Addr::new(10, 88, 0, 59) };
    config.relayed.push(ServedNetwork {
        relays: vec![RELAY],
        // It sends from its address on our side.
        relay_sources: vec![NEAR.into()],
        gateway: Some(RELAY),
        pool: Some(LeasePool { range, open: true }),
        ..ServedNetwork::new("far".parse().unwrap(), NetworkRole::Bmc, prefix)
    });
}

impl Far {
    fn new(relay: &str, ready: &str) -> Self {
        Self::at(RELAY, relay, ready)
    }

    /// With a relay of this address.
    fn at(address: Ipv4Addr, relay: &str, ready: &str) -> Self {
        Self::tuned(address, relay, ready, far_network)
    }

    /// Of this plan.
    fn tuned(address: Ipv4Addr, relay: &str, ready: &str, tune: impl FnOnce(&mut PxeConfig)) -> Self {
        let rack = Rack::tuned(&[], tune);
        let (near, namespace) = (&rack.client, format!("{}-far", rack.client));
        let server = &rack.server;
        must(&format!(
            "ip netns add {namespace}; ip -n {namespace} link set lo up
             ip -n {near} link add far0 type veth peer name eth0 netns {namespace}
             ip -n {near} addr add {address}/24 dev far0; ip -n {near} link set far0 up
             ip -n {near} addr add {NEAR}/24 dev mgmt
             ip -n {namespace} link set eth0 address {MAC}; ip -n {namespace} link set eth0 up
             ip netns exec {near} sysctl -qw net.ipv4.ip_forward=1
             ip -n {server} route add 10.88.0.0/24 via {NEAR}"
        ));
        let mut relay = rack.daemon(relay);
        relay.says(ready);
        Self { rack, namespace, _relay: relay }
    }

    /// A client of the far network that stays, and renews when told to.
    fn client(&self) -> Daemon {
        let script = self.rack.dir.path().join("stay.sh");
        let text = "#!/bin/sh\necho \"$1 ip=$ip router=$router server=$serverid\"\n\
             [ \"$1\" = bound ] && { ip addr replace $ip/24 dev eth0; ip route replace default via $router; }\nexit 0\n";
        std::fs::write(&script, text).unwrap();
        must(&format!("chmod 755 {}", script.display()));
        let command = "busybox udhcpc -f -R -t 5 -T 1 -i eth0 -s $PWD/stay.sh";
        self.rack.daemon(&format!("ip netns exec {} {command}", self.namespace))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        crate::rack::sh(&format!("ip netns del {}", self.namespace));
    }
}

fn clients_come_by(relay: &str, ready: &str) {
    let far = Far::new(relay, ready);
    let director = &far.rack.director;
    let mut client = far.client();
    client.says("bound ip=10.88.0.50 router=10.88.0.1 server=10.77.0.2");
    let acks = |director: &crate::rack::Director| {
        director.count(|what| matches!(what, What::DhcpOut { kind, .. } if kind == "ACK"))
    };
    assert_eq!(acks(director), 1, "{}", director.show());
    // It renews at the server identifier, past the relay.
    client.signal("USR1");
    client.says("renew ip=10.88.0.50");
    // It may ask twice; each time it is told yes.
    assert!(acks(director) >= 2, "{}", director.show());
    assert_eq!(director.count(|what| matches!(what, What::DhcpOut { kind, .. } if kind == "NAK")), 0);
}

#[test]
#[ignore = "needs root, isc-dhcp-relay, busybox-static"]
fn clients_come_by_iscs_relay_and_renew_without_it() {
    clients_come_by(&format!("dhcrelay -4 -d -id far0 -iu mgmt {SERVER}"), "Sending on   Socket/fallback");
}

#[test]
#[ignore = "needs root, dnsmasq-base, busybox-static"]
fn clients_come_by_dnsmasqs_relay_and_renew_without_it() {
    let relay = format!("dnsmasq -d -C /dev/null --port=0 --log-dhcp --dhcp-relay={RELAY},{SERVER}");
    clients_come_by(&relay, "DHCP relay");
}

/// The relay's `giaddr` is its address on our side, where a pool would have an address for the client, too: its own network
/// is in sub-option 5 alone (RFC 3527).
#[test]
#[ignore = "needs root, isc-dhcp-relay, busybox-static"]
fn link_selection_says_which_network_a_relays_client_is_on() {
    let far = Far::tuned(
        RELAY,
        &format!("dhcrelay -4 -d -id far0 -U mgmt {SERVER}"),
        "Sending on   Socket/fallback",
        |config| {
            far_network(config);
            // Nobody is known by the address that `giaddr` has without link selection.
            config.relayed[0].relays = vec![NEAR];
            let near = &mut config.interfaces[0].network;
            near.relays = vec![NEAR];
            let range =
                AddressRange { first: Ipv4Addr::new(10, 77, 0, 50), last: Ipv4Addr::new(10, 77, 0, 59) };
            near.pool = Some(LeasePool { range, open: true });
        },
    );
    let mut client = far.client();
    client.says("bound ip=10.88.0.50 router=10.88.0.1 server=10.77.0.2");
    let elsewhere = |what: &What| matches!(what, What::DhcpOut { kind, address, .. } if kind == "NAK" || address.is_some_and(|a| a.octets()[1] != 88));
    assert_eq!(far.rack.director.count(elsewhere), 0, "{}", far.rack.director.show());
    // A client of our own segment keeps its own network.
    let (ok, said) = udhcpc(&far.rack, "mgmt", "");
    assert!(ok && said.contains("bound ip=10.77.0.50"), "{said}");
}

#[test]
#[ignore = "needs root, isc-dhcp-relay, busybox-static"]
fn a_machine_is_told_by_the_port_that_it_stands_at() {
    let far =
        Far::new(&format!("dhcrelay -4 -d -a -id far0 -iu mgmt {SERVER}"), "Sending on   Socket/fallback");
    let pdu = Client::Fixed { name: "pdu1".parse().unwrap(), address: Ipv4Addr::new(10, 88, 0, 201) };
    far.rack.director.ports.lock().unwrap().insert(b"far0".to_vec(), pdu);
    let mut client = far.client();
    client.says("bound ip=10.88.0.201");
}

#[test]
#[ignore = "needs root, isc-dhcp-relay, busybox-static"]
fn a_relay_that_the_plan_does_not_list_is_named_and_not_answered() {
    let far = Far::at(
        STRANGER,
        &format!("dhcrelay -4 -d -id far0 -iu mgmt {SERVER}"),
        "Sending on   Socket/fallback",
    );
    let _client = far.client();
    let named = |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { reason, .. } if reason.contains("relay 10.88.0.7") && reason.contains("far"));
    far.rack.director.wait("record of the relay", SOON, named);
    assert_eq!(far.rack.director.count(|what| matches!(what, What::DhcpOut { .. })), 0);
    assert_eq!(far.rack.director.verdict(MAC), "unknown-relay", "{}", far.rack.director.show());
}

#[test]
#[ignore = "needs root, systemd"]
fn systemd_networkd_gets_what_the_plan_says() {
    let rack = Rack::new(&[]);
    rack.director.clients.lock().unwrap().insert(MAC, host(Ipv4Addr::new(10, 77, 0, 21), false));
    rack.become_client("mgmt", MAC);
    let script = "mount -t tmpfs none /run\n\
        mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp\n\
        chown -R systemd-network: /run/systemd/netif\n\
        printf '[Match]\\nName=mgmt\\n[Network]\\nDHCP=ipv4\\nLinkLocalAddressing=no\\nIPv6AcceptRA=no\\n[DHCPv4]\\nUseHostname=no\\n' > /run/systemd/network/10.network\n\
        mount -o remount,ro /sys\n\
        exec env SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console /lib/systemd/systemd-networkd\n";
    std::fs::write(rack.dir.path().join("networkd.sh"), script).unwrap();
    let mut networkd = rack.daemon("unshare -m sh networkd.sh");
    networkd.says("DHCPv4 address 10.77.0.21/24");
    networkd.says("acquired from 10.77.0.2");
    rack.director.wait("ACK", SOON, sent("ACK"));
}

#[test]
#[ignore = "needs root, busybox-static"]
fn an_address_that_somebody_uses_is_found_while_the_client_is_served() {
    let rack = Rack::new(&[]);
    let ns = &rack.client;
    // A machine with a fixed address in the pool.
    must(&format!("ip -n {ns} addr add 10.77.100.50/24 dev guest"));
    must(&format!(
        "ip -n {ns} link add mv0 link guest type macvlan mode bridge; ip -n {ns} link set mv0 address {MAC} up"
    ));
    let (_, said) = udhcpc(&rack, "mv0", "");
    let in_use = |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { reason, .. } if reason.contains("10.77.100.50") && reason.contains("in use"));
    rack.director.wait("conflict", SOON, in_use);
    let (ok, again) = udhcpc(&rack, "mv0", "");
    assert!(ok && again.contains("bound ip=10.77.100.51"), "{said}\n{again}\n{}", rack.director.show());
    assert_eq!(rack.director.verdict(MAC), "nothing", "it has another address:\n{}", rack.director.show());
}

#[test]
#[ignore = "needs root, busybox-static"]
fn probes_come_from_the_mac_that_the_bridge_has_by_then() {
    let rack = Rack::new(&[]);
    let (ok, said) = udhcpc(&rack, "guest", "");
    assert!(ok, "{said}");
    let new = MacAddr([0x52, 0x54, 0, 0x77, 0xbb, 1]);
    must(&format!("ip -n {} link set guest0 address {new}", rack.server));
    rack.become_client("guest", MAC);
    let (ok, said) = udhcpc(&rack, "guest", "");
    assert!(ok, "{said}");
    let probes = rack.director.probes.lock().unwrap();
    let (first, (from, octets)) = (probes.first().unwrap().0, probes.last().unwrap());
    assert_ne!(first, new);
    assert_eq!((*from, &octets[8..14]), (new, &new.0[..]), "the sender, on the wire and in the message");
}

/// A store on a disk that hangs, until it is closed.
struct Hanging(tokio::sync::Semaphore);

#[async_trait::async_trait]
impl LeaseStore for Hanging {
    async fn load(&self) -> Result<Vec<Lease>, LeaseStoreError> {
        Ok(Vec::new())
    }

    async fn commit(&self, _: Vec<LeaseChange>) -> Result<(), LeaseStoreError> {
        self.0.acquire().await.map(drop).map_err(|error| LeaseStoreError(error.to_string()))
    }
}

/// Lets it go on before the services end.
struct Release(Arc<Hanging>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.0.close();
    }
}

#[test]
#[ignore = "needs root, busybox-static"]
fn a_reservation_waits_for_no_disk_that_pools_wait_for() {
    let leases = Arc::new(Hanging(tokio::sync::Semaphore::new(0)));
    let rack = Rack::storing(|_| (), Arc::clone(&leases) as _);
    let _release = Release(leases);
    let fixed = Client::Fixed { name: "pdu1".parse().unwrap(), address: Ipv4Addr::new(10, 77, 100, 201) };
    rack.director.clients.lock().unwrap().insert(MAC, fixed);
    must(&format!("ip -n {} addr add 10.77.100.9/24 dev guest", rack.client));
    // A REQUEST for an address of the pool, far more often than answers may wait for the store.
    let mut request = vec![0; 240];
    request[..4].copy_from_slice(&[1, 1, 6, 0]);
    request[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x77, 8, 8]);
    request[236..240].copy_from_slice(&[99, 130, 83, 99]);
    request.extend_from_slice(&[53, 1, 3, 50, 4, 10, 77, 100, 50, 54, 4, 10, 77, 100, 2, 255]);
    let flood = rack.inside(move || {
        let socket = UdpSocket::bind("10.77.100.9:68").unwrap();
        for _ in 0..40_000 {
            socket.send_to(&request, (GUESTS, 67)).unwrap();
        }
    });
    flood.join().unwrap();
    let behind = |e: &PxeEvent| matches!(&e.what, What::DhcpIgnored { why: Ignored::NotStored, .. });
    rack.director.wait("a pool's client that gets no answer", SOON, behind);
    rack.become_client("guest", MAC);
    let (ok, said) = udhcpc(&rack, "guest", "");
    assert!(ok && said.contains("bound ip=10.77.100.201"), "{said}");
    let given = |what: &What| matches!(what, What::DhcpOut { address: Some(a), .. } if a.octets()[3] == 50);
    assert_eq!(rack.director.count(given), 0, "nothing is acknowledged that is not stored");
}

/// A REQUEST for an address of the pool, by the relay 10.77.100.9.
fn storm_request(client: u16, address: Ipv4Addr) -> Vec<u8> {
    let [high, low] = client.to_be_bytes();
    let mut request = vec![0; 240];
    request[..4].copy_from_slice(&[1, 1, 6, 1]);
    request[24..28].copy_from_slice(&[10, 77, 100, 9]);
    request[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x78, high, low]);
    request[236..240].copy_from_slice(&[99, 130, 83, 99]);
    request.extend_from_slice(&[53, 1, 3, 54, 4, 10, 77, 100, 2, 50, 4]);
    request.extend_from_slice(&address.octets());
    request.push(255);
    request
}

#[test]
#[ignore = "needs root, busybox-static"]
fn a_storm_of_ten_thousand_loses_none_while_the_disk_stands_still() {
    const CLIENTS: u16 = 10_000;
    let leases = Arc::new(Hanging(tokio::sync::Semaphore::new(0)));
    let tune = |config: &mut PxeConfig| {
        let guest = config.interfaces.iter_mut().find(|i| i.device == "guest0").unwrap();
        let first = Ipv4Addr::new(10, 77, 64, 0);
        guest.network.prefix = Ipv4Prefix { address: first, len: 18 };
        let range =
            AddressRange { first: Ipv4Addr::new(10, 77, 64, 1), last: Ipv4Addr::new(10, 77, 127, 200) };
        guest.network.pool = Some(LeasePool { range, open: true });
        guest.network.relays = vec![Ipv4Addr::new(10, 77, 100, 9)];
    };
    let rack = Rack::storing(tune, Arc::clone(&leases) as _);
    let _release = Release(Arc::clone(&leases));
    let fixed = Client::Fixed { name: "pdu1".parse().unwrap(), address: Ipv4Addr::new(10, 77, 127, 250) };
    rack.director.clients.lock().unwrap().insert(MAC, fixed);
    let ns = &rack.client;
    must(&format!(
        "ip -n {ns} addr add 10.77.100.9/24 dev guest
         ip -n {ns} link add mv0 link guest type macvlan mode bridge; ip -n {ns} link set mv0 address {MAC} up"
    ));
    let storm = rack.inside(|| {
        let socket = UdpSocket::bind("10.77.100.9:67").unwrap();
        // All answers come at once: what is lost shall not be lost here.
        let room = nix::sys::socket::sockopt::RcvBufForce;
        nix::sys::socket::setsockopt(&socket, room, &(64 << 20)).unwrap();
        let answers = socket.try_clone().unwrap();
        answers.set_read_timeout(Some(SOON * 3)).unwrap();
        let reader = std::thread::spawn(move || {
            let (mut given, mut others, mut buffer) = (BTreeSet::new(), Vec::new(), [0; 2048]);
            while given.len() < usize::from(CLIENTS) {
                let Ok(length) = answers.recv(&mut buffer) else { break };
                match &buffer[..length] {
                    answer if answer[240..243] == [53, 1, 5] => drop(given.insert(answer[16..20].to_vec())),
                    other => others.push(other[240..243].to_vec()),
                }
            }
            (given.len(), others)
        });
        let taken = [1, 2, 9].map(|last| Ipv4Addr::new(10, 77, 100, last));
        let all = (u32::from(Ipv4Addr::new(10, 77, 64, 1))..).map(Ipv4Addr::from);
        for (client, address) in (0..CLIENTS).zip(all.filter(|address| !taken.contains(address))) {
            socket.send_to(&storm_request(client, address), (GUESTS, 67)).unwrap();
        }
        reader.join().unwrap()
    });
    rack.director.has_heard(CLIENTS.into(), SOON * 3);
    let (ok, said) = udhcpc(&rack, "mv0", "");
    assert!(ok && said.contains("bound ip=10.77.127.250"), "a reservation waits for none of them: {said}");
    let given = |what: &What| matches!(what, What::DhcpOut { address: Some(a), .. } if a.octets()[2] != 127);
    assert_eq!(rack.director.count(given), 0, "nothing is acknowledged that is not stored");
    // The disk goes on.
    leases.0.add_permits(1);
    assert_eq!(storm.join().unwrap(), (usize::from(CLIENTS), Vec::new()));
    let lost = |what: &What| matches!(what, What::DhcpIgnored { .. });
    assert_eq!(rack.director.count(lost), 0);
}

#[test]
#[ignore = "needs root, kea-admin"]
fn perfdhcp_loses_no_lease() {
    let range = AddressRange { first: Ipv4Addr::new(10, 77, 100, 10), last: Ipv4Addr::new(10, 77, 100, 250) };
    let rack = Rack::tuned(&[], |config| {
        let guest = config.interfaces.iter_mut().find(|i| i.device == "guest0").unwrap();
        guest.network.pool = Some(LeasePool { range, open: true });
        // It plays a relay, which sends to our address alone.
        guest.network.relays = vec![Ipv4Addr::new(10, 77, 100, 9)];
    });
    let ns = &rack.client;
    must(&format!("ip -n {ns} addr add 10.77.100.9/24 dev guest"));
    let perfdhcp = format!("perfdhcp -4 -l guest -r 100 -R 200 -n 200 -W 500000 -s 1 {GUESTS} 2>&1");
    let done = rack.client(&perfdhcp);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.matches("received packets: 200").count() == 2, "{said}\n{}", rack.director.show());
}

/// The site's own server, which gives addresses and knows nothing of booting.
pub(crate) fn other_server(rack: &Rack, kind: &str) -> Daemon {
    let (ns, dir) = (&rack.client, rack.dir.path().display());
    must(&format!("ip -n {ns} addr add 10.77.0.66/24 dev mgmt"));
    if kind == "dnsmasq" {
        let command = format!(
            "dnsmasq -d -C /dev/null --port=0 -i mgmt --no-ping --dhcp-range=10.77.0.100,10.77.0.110 --dhcp-leasefile={dir}/other"
        );
        let mut daemon = rack.daemon(&command);
        daemon.says("DHCP, IP range");
        return daemon;
    }
    let config = r#"{"Dhcp4": {"interfaces-config": {"interfaces": ["mgmt"]},
        "lease-database": {"type": "memfile", "persist": false},
        "subnet4": [{"subnet": "10.77.0.0/24", "pools": [{"pool": "10.77.0.100 - 10.77.0.110"}]}],
        "loggers": [{"name": "kea-dhcp4", "output_options": [{"output": "stdout"}], "severity": "INFO"}]}}"#;
    std::fs::write(rack.dir.path().join("kea.json"), config).unwrap();
    must("mkdir -p /run/kea");
    let mut daemon = rack.daemon("env KEA_LOCKFILE_DIR=none KEA_PIDFILE_DIR=$PWD kea-dhcp4 -c kea.json");
    daemon.says("DHCP4_STARTED");
    daemon
}

fn boots_beside(kind: &str, firmware: Firmware, last: u8) {
    let scratch = tempfile::tempdir().unwrap();
    let rack = Rack::tuned(&images(scratch.path()), |config| {
        config.interfaces[0].network.mode = DhcpMode::Proxy;
    });
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 2, last]);
    rack.director.clients.lock().unwrap().insert(mac, host(Ipv4Addr::new(10, 77, 0, 21), true));
    let _other = other_server(&rack, kind);
    let mut machine = Machine::start(&rack, firmware, mac, None);
    let script = |e: &PxeEvent| matches!(&e.what, What::Script { action: BootAction::Discovery { .. }, .. });
    rack.director.wait("script", PATIENCE, script);
    let init = machine.says("DZT-END", PATIENCE, || rack.director.show());
    let given = |what: &What| matches!(what, What::DhcpOut { address: Some(_), .. });
    assert_eq!(rack.director.count(given), 0, "no address is ours to give:\n{}", rack.director.show());
    eprintln!("{firmware:?} beside {kind}: init {init:.1} s");
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, dnsmasq-base, a kernel"]
fn a_bios_machine_boots_beside_dnsmasqs_dhcp() {
    boots_beside("dnsmasq", Firmware::Bios, 1);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, kea-dhcp4-server, a kernel"]
fn a_bios_machine_boots_beside_keas_dhcp() {
    boots_beside("kea", Firmware::Bios, 2);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, dnsmasq-base, a kernel"]
fn a_uefi_machine_boots_beside_dnsmasqs_dhcp() {
    boots_beside("dnsmasq", Firmware::Uefi, 3);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, dnsmasq-base, a kernel"]
fn a_uefi_machine_boots_by_http_beside_dnsmasqs_dhcp() {
    boots_beside("dnsmasq", Firmware::UefiHttp, 4);
}

#[test]
#[ignore = "needs root, bind9-dnsutils"]
fn dig_finds_the_plans_names_and_no_others() {
    let rack = Rack::tuned(&[], |config| {
        let mgmt = &mut config.interfaces[0].network;
        mgmt.dns = vec![SERVER];
        config.names = NameZone {
            domain: "lab.example".into(),
            names: vec![("host1".parse().unwrap(), vec![Ipv4Addr::new(10, 77, 0, 11).into()])],
            prefixes: vec![mgmt.prefix],
            prefixes6: vec![],
        };
    });
    must(&format!("ip -n {} addr add 10.77.0.9/24 dev mgmt", rack.client));
    for (question, want) in [
        ("host1.lab.example", "10.77.0.11"),
        ("+tcp host1.lab.example", "10.77.0.11"),
        ("-x 10.77.0.11", "host1.lab.example."),
        ("+noall +comments wpad.lab.example", "status: NXDOMAIN"),
        ("+noall +comments debian.org", "status: REFUSED"),
        ("+noall +comments lab.example AXFR", "Transfer failed"),
    ] {
        let short = if question.contains("noall") { "" } else { "+short" };
        let done = rack.client(&format!("dig @{SERVER} +tries=2 +time=2 {short} {question} 2>&1"));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.contains(want), "{question}: {said}");
    }
}

/// fd77::/64 on the management network; host1 is fd77::10.77.0.21 there.
pub(crate) fn with_ipv6(config: &mut PxeConfig) {
    let address = "fd77::".parse().unwrap();
    config.interfaces[0].network.prefix6 = Some(Ipv6Prefix { address, len: 64 });
}

#[test]
#[ignore = "needs root, isc-dhcp-client, systemd"]
fn dhclient_and_networkd_get_their_ipv6_address() {
    let rack = Rack::tuned(&[], with_ipv6);
    let far = Ipv4Addr::new(10, 77, 0, 21);
    rack.director.clients.lock().unwrap().insert(MAC, host(far, false));
    rack.become_client("mgmt", MAC);
    let ns = &rack.client;
    must(&format!(
        "for i in $(seq 100); do ip -n {ns} -6 addr show dev mgmt scope link | grep -q tentative || break; sleep 0.1; done"
    ));
    let script = "#!/bin/sh\necho \"$reason $new_ip6_address\"\nexit 0\n";
    std::fs::write(rack.dir.path().join("six.sh"), script).unwrap();
    must(&format!("chmod 755 {}/six.sh", rack.dir.path().display()));
    let mut dhclient = rack.daemon("dhclient -6 -1 -d -D LL -lf $PWD/l6 -pf $PWD/p6 -sf $PWD/six.sh mgmt");
    dhclient.says("BOUND6 fd77::a4d:15");
    drop(dhclient);
    rack.director.wait("REPLY", SOON, sent("REPLY"));

    rack.become_client("mgmt", MAC);
    let mut networkd = rack.daemon(&format!("unshare -m sh {}", networkd_six(&rack)));
    // It asks because our router advertisement says that addresses are managed.
    networkd.says("fd77::a4d:15/128");
}

/// A script for a mount namespace of its own: systemd-networkd with DHCPv6 on `mgmt`. What it keeps of its links is
/// in `links` beside the script.
pub(crate) fn networkd_six(rack: &Rack) -> String {
    let network = "[Match]\\nName=mgmt\\n[Network]\\nDHCP=ipv6\\nIPv6AcceptRA=yes\\n[DHCPv6]\\nDUIDType=link-layer\\nUseHostname=no\\nUseDomains=yes\\n";
    let script = format!(
        "mount -t tmpfs none /run\n\
        mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp\n\
        chown -R systemd-network: /run/systemd/netif\n\
        printf '{network}' > /run/systemd/network/10.network\n\
        mount -o remount,ro /sys\n\
        mkdir links; mount --bind links /run/systemd/netif/links; chown systemd-network: links\n\
        exec env SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console /lib/systemd/systemd-networkd\n"
    );
    std::fs::write(rack.dir.path().join("six-networkd.sh"), script).unwrap();
    "six-networkd.sh".to_owned()
}

#[test]
#[ignore = "needs root, isc-dhcp-relay, isc-dhcp-client"]
fn ipv6_clients_come_by_iscs_relay() {
    six_by_relay("", |director, pdu| drop(director.clients.lock().unwrap().insert(MAC, pdu)));
}

/// The relay tells its interface by its number, as a C `int`.
#[test]
#[ignore = "needs root, isc-dhcp-relay, isc-dhcp-client"]
fn an_ipv6_machine_is_told_by_the_port_that_it_stands_at() {
    six_by_relay("-I", |director, pdu| {
        for number in 0..64_i32 {
            director.ports.lock().unwrap().insert(number.to_ne_bytes().to_vec(), pdu.clone());
        }
    });
}

fn six_by_relay(how: &str, plan: impl FnOnce(&crate::rack::Director, Client)) {
    let rack = Rack::tuned(&[], |config| {
        with_ipv6(config);
        far_network(config);
        let address = "fd77:0:0:8::".parse().unwrap();
        config.relayed[0].prefix6 = Some(Ipv6Prefix { address, len: 64 });
    });
    let (near, namespace) = (&rack.client, format!("{}-far", rack.client));
    must(&format!(
        "ip netns add {namespace}; ip -n {namespace} link set lo up
         ip -n {near} link add far0 type veth peer name eth0 netns {namespace}
         ip -n {near} addr add fd77:0:0:8::a58:1/64 dev far0 nodad; ip -n {near} link set far0 up
         ip -n {near} addr add fd77::a4d:58/64 dev mgmt nodad
         ip -n {} -6 route add fd77:0:0:8::/64 via fd77::a4d:58
         ip -n {namespace} link set eth0 address {MAC}; ip -n {namespace} link set eth0 up
         for i in $(seq 100); do ip -n {namespace} -6 addr show dev eth0 scope link | grep -q tentative || break; sleep 0.1; done",
        rack.server
    ));
    let pdu = Client::Fixed { name: "pdu1".parse().unwrap(), address: Ipv4Addr::new(10, 88, 0, 201) };
    plan(&rack.director, pdu);
    let mut relay = rack.daemon(&format!("dhcrelay -6 -d {how} -l far0 -u fd77::a4d:2%mgmt"));
    relay.says("Sending on");
    let script = "#!/bin/sh\necho \"$reason $new_ip6_address\"\nexit 0\n";
    std::fs::write(rack.dir.path().join("six.sh"), script).unwrap();
    must(&format!("chmod 755 {}/six.sh", rack.dir.path().display()));
    let client = format!(
        "ip netns exec {namespace} dhclient -6 -1 -d -D LL -lf $PWD/l6 -pf $PWD/p6 -sf $PWD/six.sh eth0"
    );
    let mut dhclient = rack.daemon(&client);
    dhclient.says("BOUND6 fd77::8:0:0:a58:c9");
    drop(dhclient);
    must(&format!("ip netns del {namespace}"));
}
