//! Relays as they are, and as somebody plays them: a network behind one whose addresses another server gives, where real
//! machines boot all the same; and a machine of our own segment that says that it is one.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use dayzero_model::MacAddr;
use dayzero_model::boot::BootAction;
use dayzero_model::event::{Ignored, What};
use dayzero_model::site::{DhcpMode, NetworkRole};
use dayzero_pxe::PxeEvent;

use crate::machine::{Firmware, Machine};
use crate::machines::PATIENCE;
use crate::rack::{Daemon, NEAR, Rack, SERVER, host, must, sh};
use crate::segments::{RELAY, far_network};

const SOON: Duration = Duration::from_secs(20);
/// The site's own DHCP server, on our segment.
const SITE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);

/// A namespace of the site's own server; gone when dropped.
struct SiteServer {
    namespace: String,
    _dnsmasq: Daemon,
}

impl SiteServer {
    /// dnsmasq, which gives the far network's addresses and knows nothing of booting.
    fn new(rack: &Rack) -> Self {
        let (server, namespace) = (&rack.server, format!("{}-site", rack.client));
        must(&format!(
            "ip netns add {namespace}; ip -n {namespace} link set lo up
             ip -n {server} link add p-site type veth peer name eth0 netns {namespace}
             ip -n {server} link set p-site master mgmt0 up
             ip -n {namespace} addr add {SITE}/24 dev eth0; ip -n {namespace} link set eth0 up
             ip -n {namespace} route add 10.88.0.0/24 via {NEAR}"
        ));
        let dnsmasq = format!(
            "ip netns exec {namespace} dnsmasq -d -C /dev/null --port=0 -i eth0 --no-ping --log-dhcp \
             --dhcp-range=10.88.0.100,10.88.0.110,255.255.255.0 --dhcp-option=option:router,{RELAY} \
             --dhcp-leasefile={}/site",
            rack.dir.path().display()
        );
        let mut dnsmasq = rack.daemon(&dnsmasq);
        dnsmasq.says("DHCP, IP range");
        Self { namespace, _dnsmasq: dnsmasq }
    }
}

impl Drop for SiteServer {
    fn drop(&mut self) {
        sh(&format!("ip netns del {}", self.namespace));
    }
}

fn boots_behind_a_relay(firmware: Firmware, loader: &str, last: u8) {
    let rack = Rack::tuned(&[], |config| {
        far_network(config);
        let far = &mut config.relayed[0];
        (far.role, far.mode, far.pool) = (NetworkRole::Management, DhcpMode::Proxy, None);
    });
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 3, last]);
    rack.director.clients.lock().unwrap().insert(mac, host(Ipv4Addr::new(10, 88, 0, 21), true));
    let (near, server) = (&rack.client, &rack.server);
    must(&format!(
        "ip -n {near} link add far0 type bridge forward_delay 0; ip -n {near} link set far0 address 02:00:00:00:88:01
         ip -n {near} addr add {RELAY}/24 dev far0; ip -n {near} link set far0 up
         ip -n {near} addr add {NEAR}/24 dev mgmt
         ip netns exec {near} sysctl -qw net.ipv4.ip_forward=1
         ip -n {server} route add 10.88.0.0/24 via {NEAR}"
    ));
    let _site = SiteServer::new(&rack);
    // It must send to both: who was chosen is told to all servers, and so to us.
    let mut relay = rack.daemon(&format!("dhcrelay -4 -d -id far0 -iu mgmt {SERVER} {SITE}"));
    relay.says("Sending on   Socket/fallback");
    let machine = Machine::start_at(&rack, (near, "far0"), firmware, mac, None);
    let director = &rack.director;
    let of_host = |e: &PxeEvent| e.mac == Some(mac) && e.host.as_ref().is_some_and(|h| h.as_str() == "host1");
    let script = |e: &PxeEvent| {
        of_host(e) && matches!(&e.what, What::Script { action: BootAction::Discovery { .. }, .. })
    };
    director.wait("script", PATIENCE, script);
    let kernel = |e: &PxeEvent| {
        of_host(e)
            && matches!(&e.what, What::HttpFile { path, status: 200, .. } if path == "/boot/file/vmlinuz")
    };
    let end = director.wait("kernel, and whose it is", PATIENCE, kernel);
    let given = |what: &What| matches!(what, What::DhcpOut { address: Some(_), .. });
    assert_eq!(director.count(given), 0, "no address is ours to give:\n{}", director.show());
    let loaders = |what: &What| matches!(what, What::TftpEnd { file, error: None, .. } if file == loader);
    assert_eq!(director.count(loaders), 1, "our loader loads no loader:\n{}", director.show());
    eprintln!(
        "{firmware:?} behind a relay, beside dnsmasq: script and kernel {:.1} s",
        (end - machine.start).as_secs_f64()
    );
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, isc-dhcp-relay, dnsmasq-base"]
fn a_bios_machine_boots_behind_a_relay_beside_dnsmasqs_dhcp() {
    boots_behind_a_relay(Firmware::Bios, "undionly.kpxe", 1);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, isc-dhcp-relay, dnsmasq-base"]
fn a_uefi_machine_boots_behind_a_relay_beside_dnsmasqs_dhcp() {
    boots_behind_a_relay(Firmware::Uefi, "snponly.efi", 2);
}

#[test]
#[ignore = "needs root"]
fn a_machine_that_gives_itself_an_address_is_no_relay() {
    let rack = Rack::tuned(&[], far_network);
    let (segment, nowhere) = (Ipv4Addr::new(10, 77, 0, 50), Ipv4Addr::new(172, 20, 0, 1));
    must(&format!(
        "for conf in all mgmt0; do ip netns exec {server} sysctl -qw net.ipv4.conf.$conf.rp_filter=0; done
         for own in {segment}/24 {NEAR}/24 {nowhere}/32; do ip -n {client} addr add $own dev mgmt; done",
        server = rack.server,
        client = rack.client,
    ));
    let mut discover = vec![0; 240];
    discover[..4].copy_from_slice(&[1, 1, 6, 1]);
    discover[24..28].copy_from_slice(&RELAY.octets());
    discover[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x77, 9, 9]);
    discover[236..240].copy_from_slice(&[99, 130, 83, 99]);
    discover.extend_from_slice(&[53, 1, 1, 255]);
    let say = |from: Ipv4Addr| {
        let discover = discover.clone();
        let send = move || UdpSocket::bind((from, 67)).unwrap().send_to(&discover, (SERVER, 67)).unwrap();
        rack.inside(send).join().unwrap();
    };
    let out = |what: &What| matches!(what, What::DhcpOut { .. });
    for from in [segment, nowhere] {
        say(from);
        let named = |e: &PxeEvent| {
            matches!(&e.what, What::DhcpIgnored { why: Ignored::UnknownRelay { relay }, reason }
                if *relay == RELAY && reason.contains(&format!("came from {from}:")))
        };
        rack.director.wait("record of the machine", SOON, named);
        assert_eq!(rack.director.count(out), 0, "{}", rack.director.show());
    }
    // The same datagram from where the plan says that this relay sends.
    say(NEAR);
    rack.director.wait("OFFER", SOON, |e| out(&e.what));
}
