//! What one machine of a segment can send to keep the others from their addresses: answers that the kernel cannot deliver.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dayzero_model::MacAddr;
use dayzero_model::boot::Client;
use dayzero_model::event::What;

use crate::clients::udhcpc;
use crate::faults::drop_at;
use crate::rack::{NEAR, Rack, SERVER, host, must};
use crate::segments::{far_network, with_ipv6};

/// A planned machine that is off: its MAC is known to whoever saw it once.
const OFF: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x41]);
/// One that wants its address.
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x42]);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// The kernel gives up an address that answers no ARP after three seconds; a lease takes far less.
const NORMAL: Duration = Duration::from_millis(1500);
/// Sent before the client starts, and enough to fill a socket many times over.
const FIRST: u32 = 2000;
const SOON: Duration = Duration::from_secs(20);

/// A BOOTREQUEST of a planned MAC that says it has an address.
fn claims(kind: u8, ciaddr: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[12..16].copy_from_slice(&ciaddr.octets());
    message[28..34].copy_from_slice(&OFF.0);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(&[53, 1, kind, 55, 1, 1, 255]);
    message
}

/// Goes on until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// What `send` sends, [`FIRST`] times at once, and then a thousand times a second.
    fn new(rack: &Rack, send: impl Fn(u32) + Send + 'static) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = rack.inside(move || {
            for n in 0.. {
                if told.load(Ordering::Relaxed) {
                    break;
                }
                send(n);
                count.store(n, Ordering::Relaxed);
                if n > FIRST {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let end = Instant::now() + SOON;
        while sent.load(Ordering::Relaxed) < FIRST {
            assert!(Instant::now() < end && !thread.is_finished(), "the flood does not flow");
            std::thread::sleep(Duration::from_millis(1));
        }
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the flood flowed to the end");
    }
}

/// The attacker is `mgmt`, the client at a port of its own.
fn rack() -> Rack {
    Rack::tuned(&[], |config| {
        with_ipv6(config);
        far_network(config);
    })
}

/// Whoever wants a lease gets it in normal time, by broadcast and by unicast.
fn leases_flow(rack: &Rack) {
    rack.director.has_heard(u64::from(FIRST), SOON);
    let answers = rack.director.count(|what| matches!(what, What::DhcpOut { .. }));
    assert!(answers >= FIRST as usize / 2, "{answers} answers to nobody");
    rack.director.clients.lock().unwrap().insert(MAC, host(Ipv4Addr::new(10, 77, 0, 42), false));
    rack.second_port(&format!("link set address {MAC}"));
    for how in ["", "-B"] {
        must(&format!("ip -n {} addr flush dev two", rack.client));
        let start = Instant::now();
        let (ok, said) = udhcpc(rack, "two", how);
        let took = start.elapsed();
        assert!(ok && said.contains("bound ip=10.77.0.42"), "{said}");
        assert!(took < NORMAL, "{took:?} for a lease {how}: {said}");
    }
}

/// A planned MAC and addresses of the segment that nobody has: each answer would wait until ARP gives up.
#[test]
#[ignore = "needs root, busybox-static"]
fn answers_to_addresses_that_nobody_has_hold_up_no_other() {
    let rack = rack();
    rack.director.clients.lock().unwrap().insert(OFF, host(Ipv4Addr::new(10, 77, 0, 41), false));
    must(&format!("ip -n {} addr add {ATTACKER}/24 dev mgmt", rack.client));
    // INFORM, and REQUEST in the state RENEWING.
    for kind in [8, 3] {
        let flood = Flood::new(&rack, move |n| {
            thread_local!(static SOCKET: UdpSocket = UdpSocket::bind((ATTACKER, 68)).unwrap());
            let nobody = Ipv4Addr::new(10, 77, 0, if kind == 3 { 41 } else { 100 + (n % 100) as u8 });
            SOCKET.with(|socket| socket.send_to(&claims(kind, nobody), (SERVER, 67)).unwrap());
        });
        leases_flow(&rack);
        drop(flood);
        must(&format!("ip -n {} link del p-two", rack.server));
    }
}

/// The same for addresses of a network behind a relay, which anybody can claim to send from: our side asks for each by ARP
/// where no route is, and for its gateway otherwise, which is off here.
#[test]
#[ignore = "needs root, busybox-static"]
fn answers_to_routed_clients_that_nobody_is_hold_up_no_other() {
    let rack = rack();
    let pdu = Client::Fixed { name: "pdu1".parse().unwrap(), address: Ipv4Addr::new(10, 88, 0, 201) };
    rack.director.clients.lock().unwrap().insert(OFF, pdu);
    // It can send from all of them, and answers for none.
    let ns = &rack.client;
    must(&format!(
        "ip -n {ns} route add local 10.88.0.0/24 dev lo; ip -n {ns} addr add {ATTACKER}/24 dev mgmt"
    ));
    must(&format!("ip netns exec {ns} sysctl -qw net.ipv4.conf.all.arp_ignore=1"));
    for routed in [false, true] {
        if routed {
            must(&format!("ip -n {} route add 10.88.0.0/24 via {NEAR}", rack.server));
        }
        let flood = Flood::new(&rack, move |n| {
            let nobody = Ipv4Addr::new(10, 88, 0, 10 + (n % 240) as u8);
            let socket = UdpSocket::bind((nobody, 68)).unwrap();
            socket.send_to(&claims(8, nobody), (SERVER, 67)).unwrap();
        });
        leases_flow(&rack);
        drop(flood);
        must(&format!("ip -n {} link del p-two", rack.server));
    }
}

/// The same by IPv6: link-local addresses that nobody has.
#[test]
#[ignore = "needs root, isc-dhcp-client, nftables"]
fn answers_to_neighbours_that_nobody_is_hold_up_no_other_by_ipv6() {
    let rack = rack();
    let clients = [(OFF, 41), (MAC, 42)];
    let planned = clients.map(|(mac, last)| (mac, host(Ipv4Addr::new(10, 77, 0, last), false)));
    rack.director.clients.lock().unwrap().extend(planned);
    // It can send from all of them, and answers for none.
    let nobody = |n: u32| Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 0, 0, (n % 500) as u16 + 1);
    let all: String = (0..500).map(|n| format!("addr add {}/64 dev mgmt nodad\n", nobody(n))).collect();
    let file = rack.dir.path().join("addresses");
    std::fs::write(&file, all).unwrap();
    must(&format!("ip -n {} -batch {}", rack.client, file.display()));
    drop_at(&rack.client, "mgmt", "icmpv6 type nd-neighbor-solicit");
    rack.second_port(&format!("link set address {MAC}"));
    for device in ["mgmt", "two"] {
        let ns = &rack.client;
        must(&format!(
            "for i in $(seq 100); do ip -n {ns} -6 addr show dev {device} scope link | grep -q tentative || break; sleep 0.1; done"
        ));
    }
    let script = rack.dir.path().join("six.sh");
    std::fs::write(&script, "#!/bin/sh\necho \"$reason $new_ip6_address\"\nexit 0\n").unwrap();
    must(&format!("chmod 755 {}", script.display()));
    let device = rack.inside(|| nix::net::if_::if_nametoindex("mgmt").unwrap()).join().unwrap();
    // A SOLICIT with a DUID made of a planned MAC, and an association.
    let duid = [&[0, 3, 0, 1][..], &OFF.0].concat();
    let solicit = [&[1, 0, 0, 1, 0, 1, 0, 10][..], &duid, &[0, 3, 0, 12], &[0; 12]].concat();
    let flood = Flood::new(&rack, move |n| {
        let socket = UdpSocket::bind(SocketAddrV6::new(nobody(n), 546, 0, device)).unwrap();
        let all = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), 547, 0, device);
        socket.send_to(&solicit, all).unwrap();
    });
    let start = Instant::now();
    let mut dhclient = rack.daemon("dhclient -6 -1 -d -D LL -lf $PWD/l6 -pf $PWD/p6 -sf $PWD/six.sh two");
    dhclient.says("BOUND6 fd77::a4d:2a");
    let took = start.elapsed();
    assert!(took < NORMAL * 2, "{took:?}: {}", dhclient.said());
    drop((dhclient, flood));
}
