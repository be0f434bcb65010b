//! The boot server's port (4011), where a client asks that was told by proxyDHCP to ask there.
//!
//! The client is ours, over real UDP sockets and the whole service: no free client that runs without firmware asks there, and
//! the firmware that Debian has takes what the offer says.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use dayzero_model::MacAddr;
use dayzero_model::event::What;
use dayzero_model::site::{DhcpMode, NetworkRole};

use crate::rack::{NEAR, Rack, SERVER, host, must};
use crate::segments::far_network;

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x51]);
const SOON: Duration = Duration::from_secs(20);
/// What the other server gave it: on our segment, and on one behind a router.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 105);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 105);

/// DHCPREQUEST of a UEFI machine, as PXE 2.1 (section 2.2.2, step 5) has it.
fn request(ciaddr: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..8].copy_from_slice(&[1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
    message[12..16].copy_from_slice(&ciaddr.octets());
    message[28..34].copy_from_slice(&MAC.0);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    for (code, value) in [
        (53, &[3][..]),
        (55, &[1, 3, 43, 60, 66, 67]),
        (57, &1472_u16.to_be_bytes()),
        (60, b"PXEClient:Arch:00007:UNDI:003016"),
        (93, &[0, 7]),
        (94, &[1, 3, 16]),
        (97, b"\0sixteen octets!!"),
    ] {
        message.extend_from_slice(&[code, u8::try_from(value.len()).unwrap()]);
        message.extend_from_slice(value);
    }
    message.push(255);
    message
}

/// The value of an option, or nothing.
fn option(message: &[u8], wanted: u8) -> &[u8] {
    let mut rest = &message[240..];
    while let [code, length, tail @ ..] = rest {
        let (value, tail) = tail.split_at(usize::from(*length));
        if *code == wanted {
            return value;
        }
        rest = tail;
    }
    &[]
}

#[test]
#[ignore = "needs root"]
fn whoever_asks_the_boot_servers_port_is_told_its_loader_from_that_port() {
    let rack = Rack::tuned(&[], |config| {
        config.interfaces[0].network.mode = DhcpMode::Proxy;
        far_network(config);
        let far = &mut config.relayed[0];
        (far.mode, far.role, far.pool) = (DhcpMode::Proxy, NetworkRole::Management, None);
    });
    rack.director.clients.lock().unwrap().insert(MAC, host(HERE, true));
    rack.become_client("mgmt", MAC);
    must(&format!(
        "ip -n {0} addr add {HERE}/24 dev mgmt; ip -n {0} addr add {NEAR}/24 dev mgmt; ip -n {0} addr add {FAR}/32 dev mgmt
         ip -n {1} route add 10.88.0.0/24 via {NEAR}",
        rack.client, rack.server
    ));
    // From either port that firmware asks from, with its address in the message and without.
    for (own, port, says) in [(HERE, 68, HERE), (HERE, 4011, Ipv4Addr::UNSPECIFIED), (FAR, 4011, FAR)] {
        let asked = rack.inside(move || {
            let socket = UdpSocket::bind((own, port)).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket.send_to(&request(says), (SERVER, 4011)).unwrap();
            let mut buffer = [0; 2048];
            let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
            (buffer[..length].to_vec(), from)
        });
        let (answer, from) = asked.join().unwrap();
        assert_eq!(from, SocketAddr::from((SERVER, 4011)), "{own}");
        assert_eq!((answer[0], &answer[4..8], &answer[28..34]), (2, &request(says)[4..8], &MAC.0[..]));
        assert_eq!((option(&answer, 53), option(&answer, 54)), (&[5][..], &SERVER.octets()[..]));
        assert_eq!(
            (option(&answer, 60), option(&answer, 97)),
            (&b"PXEClient"[..], &b"\0sixteen octets!!"[..])
        );
        assert_eq!(
            (&answer[16..20], &answer[20..24]),
            (&[0; 4][..], &SERVER.octets()[..]),
            "no address is given"
        );
        let file = |message: &[u8]| {
            let field = &message[108..236];
            let end = field.iter().position(|octet| *octet == 0).unwrap();
            if end > 0 { field[..end].to_vec() } else { option(message, 67).to_vec() }
        };
        assert_eq!(file(&answer), b"snponly.efi", "{own}");
    }
    let told = |what: &What| matches!(what, What::DhcpOut { kind, address: None, file: Some(file) } if kind == "ACK" && file == "snponly.efi");
    assert_eq!(rack.director.count(told), 3, "{}", rack.director.show());
}
