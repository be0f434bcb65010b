//! The server against real sockets: a client of our own, and curl, tftp-hpa and atftp where they are installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use dayzero_tftp_server::{Event, EventKind, Limits, Listen, Lookup, Patience, Server};
use tokio_util::sync::{CancellationToken, DropGuard};

struct Running {
    address: SocketAddr,
    events: Receiver<Event>,
    file: Bytes,
    _stop: DropGuard,
    _runtime: tokio::runtime::Runtime,
}

impl Running {
    fn next(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(20)).expect("an event within 20 s")
    }
    fn until_end(&self) -> Event {
        loop {
            let event = self.next();
            if !matches!(event.kind, EventKind::Started { .. }) {
                return event;
            }
        }
    }
}

fn start(bind: &str, limits: Limits) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let file: Bytes = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let listen = Listen { address: bind.parse().unwrap(), iface: "lo".into(), device: None };
    let stop = CancellationToken::new();
    let (sender, events) = channel();
    let served = file.clone();
    let server = runtime.block_on(async { Server::bind(&[listen], limits) }).unwrap();
    let address = server.addresses()[0];
    runtime.spawn(server.run(
        move |request| match request.name.as_str() {
            "boot/loader.efi" => Lookup::File(served.clone()),
            "planned" => Lookup::Expected(served.clone()),
            "empty" => Lookup::File(Bytes::new()),
            "secret" => Lookup::Denied("no open boot window".into()),
            _ => Lookup::NotFound,
        },
        move |event| drop(sender.send(event)),
        stop.clone(),
    ));
    Running { address, events, file, _stop: stop.drop_guard(), _runtime: runtime }
}

/// Of the server's address family.
fn client(server: SocketAddr) -> UdpSocket {
    let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn rrq(fields: &[&str]) -> Vec<u8> {
    let mut out = vec![0, 1];
    for field in fields {
        out.extend_from_slice(field.as_bytes());
        out.push(0);
    }
    out
}

/// Fetches by a minimal RFC 7440 client; returns the data and how many DATA packets came.
fn fetch(server: SocketAddr, fields: &[&str], block: usize, window: u64) -> (Vec<u8>, u64) {
    let socket = client(server);
    socket.send_to(&rrq(fields), server).unwrap();
    let (mut data, mut packets, mut last, mut buffer) = (Vec::new(), 0, 0u64, vec![0; 70_000]);
    loop {
        let (length, from) = socket.recv_from(&mut buffer).expect("a packet within 10 s");
        match buffer[1] {
            6 => drop(socket.send_to(&[0, 4, 0, 0], from).unwrap()),
            3 => {
                packets += 1;
                let number = u16::from_be_bytes([buffer[2], buffer[3]]);
                if number != ((last + 1) & 0xffff) as u16 {
                    continue;
                }
                last += 1;
                data.extend_from_slice(&buffer[4..length]);
                let done = length < block + 4;
                if done || last.is_multiple_of(window) {
                    socket.send_to(&[0, 4, buffer[2], buffer[3]], from).unwrap();
                }
                if done {
                    return (data, packets);
                }
            }
            other => panic!("opcode {other}: {}", String::from_utf8_lossy(&buffer[4..length])),
        }
    }
}

#[test]
fn serves_each_combination_of_options() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        serves_each_combination(at);
    }
}

fn serves_each_combination(at: &str) {
    let server = start(at, Limits::default());
    let name = "\\boot\\loader.efi";
    let cases: [(&[&str], usize, u64); 6] = [
        (&[name, "octet"], 512, 1),
        (&[name, "octet", "blksize", "1432", "tsize", "0"], 1432, 1),
        (&[name, "octet", "blksize", "1468", "windowsize", "4"], 1468, 4),
        (&[name, "octet", "blksize", "1468", "windowsize", "64"], 1468, 64),
        (&[name, "octet", "blksize", "9000", "timeout", "3"], 9000, 1),
        (&[name, "octet", "blksize", "65464", "windowsize", "9"], 65464, 1),
    ];
    for (fields, block, window) in cases {
        let (data, packets) = fetch(server.address, fields, block, window);
        assert!(data == server.file, "{at}: {fields:?}: {} bytes differ", data.len());
        let end = server.until_end();
        let EventKind::Completed { bytes, resent, .. } = end.kind else { panic!("{fields:?}: {end:?}") };
        assert_eq!((bytes, end.name.as_str()), (3_000_000, "boot/loader.efi"));
        if resent == 0 {
            assert_eq!(packets, 3_000_000 / block as u64 + 1, "{fields:?}");
        }
    }
    assert_eq!(fetch(server.address, &["empty", "octet"], 512, 1).0, b"");
}

#[test]
fn refuses_in_words_and_answers_from_the_address_asked() {
    for (any, asked) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "::1")] {
        refuses(any, asked);
    }
}

fn refuses(any: &str, asked: &str) {
    let server = start(any, Limits::default());
    let asked = SocketAddr::new(asked.parse().unwrap(), server.address.port());
    let socket = client(asked);
    for (fields, code, text) in [
        (&["../etc/passwd", "octet"][..], 2, "'..'"),
        (&["nothing", "octet"], 1, "no such file"),
        (&["secret", "octet"], 2, "no open boot window"),
        (&["boot/loader.efi", "netascii"], 4, "netascii"),
        (&["boot/loader.efi", "octet", "blksize", "0"], 8, "blksize"),
    ] {
        socket.send_to(&rrq(fields), asked).unwrap();
        let mut buffer = [0; 200];
        let (length, _) = socket.recv_from(&mut buffer).expect("an answer");
        assert_eq!((buffer[1], buffer[3]), (5, code), "{fields:?}");
        let message = String::from_utf8_lossy(&buffer[4..length]).into_owned();
        assert!(message.contains(text), "{fields:?}: {message}");
        assert!(matches!(server.next().kind, EventKind::Refused { .. }));
    }
    socket.send_to(&rrq(&["empty", "octet"]), asked).unwrap();
    let (_, from) = socket.recv_from(&mut [0; 600]).unwrap();
    assert_eq!(from.ip(), asked.ip(), "the transfer answers from the address that was asked");
    assert_eq!(server.next().local, asked.ip());
}

#[test]
fn asking_for_the_size_alone_is_no_failure_and_a_vanished_client_times_out() {
    let stranger = Patience { give_up: Duration::from_millis(300), ..Patience::STRANGER };
    let limits = Limits { stranger, ..Limits::default() };
    let server = start("127.0.0.1:0", limits);
    let socket = client(server.address);
    socket.send_to(&rrq(&["boot/loader.efi", "octet", "tsize", "0"]), server.address).unwrap();
    let mut buffer = [0; 600];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"\0\x06tsize\x003000000\0");
    socket.send_to(b"\0\x05\0\x08User aborted the transfer\0", from).unwrap();
    let end = server.next();
    assert!(matches!(end.kind, EventKind::Aborted { after_oack: true, .. }), "{end:?}");

    socket.send_to(&rrq(&["boot/loader.efi", "octet"]), server.address).unwrap();
    let (_, from) = socket.recv_from(&mut buffer).unwrap();
    socket.send_to(&[0, 4, 0, 1], from).unwrap();
    let end = server.until_end();
    assert!(matches!(end.kind, EventKind::TimedOut { after_block: 1, bytes: 512, .. }), "{end:?}");
}

#[test]
fn a_client_beyond_its_limit_is_dropped_not_refused() {
    let server = start("127.0.0.1:0", Limits { per_client: 2, ..Limits::default() });
    let sockets: Vec<UdpSocket> = (0..3).map(|_| client(server.address)).collect();
    for socket in &sockets {
        socket.send_to(&rrq(&["boot/loader.efi", "octet"]), server.address).unwrap();
    }
    let kinds: Vec<EventKind> = (0..3).map(|_| server.next().kind).collect();
    assert_eq!(kinds.iter().filter(|k| matches!(k, EventKind::Busy)).count(), 1, "{kinds:?}");
}

#[test]
fn a_flood_of_strangers_leaves_places_to_those_who_are_expected() {
    let limits = Limits { transfers: 8, strangers: 4, ..Limits::default() };
    let server = start("127.0.0.1:0", limits);
    // Each from an address of its own, as forged ones would be.
    let ask = |last: u8, name: &str| {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 1, last], 0))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(&rrq(&[name, "octet"]), server.address).unwrap();
        socket
    };
    let flood: Vec<UdpSocket> = (1..=30).map(|last| ask(last, "boot/loader.efi")).collect();
    let busy = (0..30).filter(|_| matches!(server.next().kind, EventKind::Busy)).count();
    assert_eq!(busy, 26, "four got a place, and have it until they are given up");
    let planned = ask(40, "planned");
    planned.recv_from(&mut [0; 600]).expect("an expected client is served meanwhile");
    drop(flood);
}

#[test]
fn whoever_acknowledges_too_slowly_is_told_that_it_is_over() {
    let stranger = Patience { grace: Duration::from_millis(200), least_rate: u64::MAX, ..Patience::STRANGER };
    let server = start("127.0.0.1:0", Limits { stranger, ..Limits::default() });
    let socket = client(server.address);
    socket.send_to(&rrq(&["boot/loader.efi", "octet"]), server.address).unwrap();
    let mut buffer = [0; 600];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).expect("a block, or the end");
        if buffer[1] == 5 {
            assert!(String::from_utf8_lossy(&buffer[4..length]).contains("too slow"));
            break;
        }
        // 3,000,000 bytes by blocks of 512, each with a pause, take far longer than it has.
        std::thread::sleep(Duration::from_millis(5));
        socket.send_to(&[0, 4, buffer[2], buffer[3]], from).unwrap();
    }
    let end = server.until_end();
    assert!(matches!(end.kind, EventKind::TooSlow { after_block: 1.., .. }), "{end:?}");
}

/// Runs a client; what the server saw last.
fn by_command(server: &Running, command: &str) -> EventKind {
    let dir = tempfile::tempdir().unwrap();
    let port = server.address.port().to_string();
    let host = if server.address.is_ipv4() { "127.0.0.1" } else { "::1" };
    let in_url = if server.address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
    let command = command.replace("PORT", &port).replace("URL", in_url).replace("HOST", host);
    let done = Command::new("sh").arg("-ec").arg(&command).current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{command}: {said}");
    let got = std::fs::read(dir.path().join("out")).unwrap_or_default();
    assert!(got == server.file, "{command}: {} bytes: {said}", got.len());
    server.until_end().kind
}

const CLIENTS: [&str; 11] = [
    "curl -sS -o out tftp://URL:PORT/boot/loader.efi",
    "curl -sS --tftp-blksize 1468 -o out tftp://URL:PORT/boot/loader.efi",
    "curl -sS --tftp-blksize 65464 -o out tftp://URL:PORT/boot/loader.efi",
    "curl -sS --tftp-no-options -o out tftp://URL:PORT/boot/loader.efi",
    "tftp -m binary HOST PORT -c get boot/loader.efi out",
    "atftp --option 'blksize 1468' -g -r boot/loader.efi -l out HOST PORT",
    "atftp --option 'blksize 1428' --option 'windowsize 8' -g -r boot/loader.efi -l out HOST PORT",
    "atftp --option 'blksize 1468' --option 'windowsize 64' -g -r boot/loader.efi -l out HOST PORT",
    "atftp --option 'blksize 65464' --option 'windowsize 4' -g -r boot/loader.efi -l out HOST PORT",
    "busybox tftp -b 1432 -g -r boot/loader.efi -l out HOST PORT",
    "busybox tftp -b 65464 -g -r boot/loader.efi -l out HOST PORT",
];

#[test]
#[ignore = "needs curl, tftp-hpa, atftp, busybox-static"]
fn real_clients_get_the_file() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let server = start(at, Limits::default());
        for command in CLIENTS {
            let end = by_command(&server, command);
            assert!(matches!(end, EventKind::Completed { .. }), "{at}: {command}: {end:?}");
        }
    }
}

#[test]
#[ignore = "needs root, nftables, iproute2, curl, tftp-hpa, atftp, busybox-static"]
fn real_clients_get_the_file_while_one_packet_of_a_hundred_is_lost() {
    // A thread with a network of its own: the server's threads and the clients inherit it.
    let lab = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        let lossy = "ip link set lo up; nft 'add table inet t; add chain inet t i { type filter hook input priority 0; }; \
                     add rule inet t i meta l4proto udp numgen random mod 100 < 1 drop'";
        assert!(Command::new("sh").args(["-ec", lossy]).status().unwrap().success());
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let server = start(at, Limits::default());
            let mut resent = 0;
            for command in CLIENTS {
                // A client that is done may leave an acknowledgement in doubt, but no transfer may fail before.
                match by_command(&server, command) {
                    EventKind::Completed { resent: again, .. } => resent += again,
                    end => panic!("{at}: {command}: {end:?}"),
                }
            }
            assert!(resent > 10, "{at}: something was lost: {resent}");
        }
    });
    lab.join().unwrap();
}

#[test]
#[ignore = "needs root, iproute2"]
fn by_ipv6_the_address_that_was_asked_answers_and_a_block_fits_the_path() {
    let lab = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        let addresses = "ip link set lo up mtu 1500; ip addr add fd77::1/64 dev lo nodad; ip addr add fd77::2/64 dev lo nodad";
        assert!(Command::new("sh").args(["-ec", addresses]).status().unwrap().success());
        let server = start("[::]:0", Limits::default());
        for asked in ["fd77::1", "fd77::2"] {
            let asked = SocketAddr::new(asked.parse().unwrap(), server.address.port());
            let socket = client(asked);
            socket.send_to(&rrq(&["boot/loader.efi", "octet", "blksize", "65464"]), asked).unwrap();
            let mut buffer = [0; 70_000];
            let (length, from) = socket.recv_from(&mut buffer).expect("an OACK");
            assert_eq!(from.ip(), asked.ip());
            // 1500 less 40 of IPv6, 8 of UDP, 4 of TFTP.
            assert_eq!(&buffer[..length], b"\0\x06blksize\x001448\0");
            socket.send_to(b"\0\x05\0\0enough\0", from).unwrap();
            assert_eq!(server.next().local, asked.ip());
        }
    });
    lab.join().unwrap();
}
