//! A real iPXE that is told to come back, since others have all of the link's places: it does, by itself.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dayzero_model::MacAddr;
use dayzero_model::boot::Client;
use dayzero_model::event::What;

use crate::machine::{Firmware, Machine};
use crate::machines::{PATIENCE, images};
use crate::rack::{Daemon, Rack, host, must};

/// Places of a link whose speed nobody tells.
const PLACES: usize = 64;
const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

fn until(what: &str, context: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}\n{}", context());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Planned hosts with the crowd's addresses, known by their DHCP: strangers would have half of the places at most.
fn plan_crowd(rack: &Rack) {
    let numbers = 100..100 + PLACES + 6;
    let mut clients = rack.director.clients.lock().unwrap();
    for n in numbers.clone() {
        let n = u8::try_from(n).unwrap();
        let (mac, address) = (MacAddr([2, 0x77, 0, 0, 0, n]), Ipv4Addr::new(10, 77, 0, n));
        let name = format!("crowd{n}").parse().unwrap();
        let chain = dayzero_model::boot::Chain::Ipxe;
        clients.insert(mac, Client::Host { host: name, address, window: None, uuid: None, chain });
    }
    drop(clients);
    let ns = &rack.client;
    for n in numbers {
        must(&format!(
            "ip -n {ns} link add v{n} link mgmt address 02:77:00:00:00:{n:02x} type macvlan mode bridge
             ip -n {ns} link set v{n} up
             ip netns exec {ns} busybox udhcpc -f -n -q -t 10 -T 1 -i v{n} -s /bin/true >/dev/null 2>&1
             ip -n {ns} link del v{n}"
        ));
    }
    let addresses: String =
        (100..100 + PLACES + 6).map(|n| format!("ip -n {ns} addr add 10.77.0.{n}/24 dev mgmt\n")).collect();
    must(&addresses);
}

/// So many clients, each at an address of its own, that they take every place; gone when dropped.
fn crowd(rack: &Rack) -> Vec<Daemon> {
    let one = |n: usize| {
        let url = "http://10.77.0.2:8080/boot/file/large.img";
        // Fast enough to be no slow client; who is told to come back does so too, which curl does not with `-o /dev/null`: it
        // cannot truncate that.
        let curl = format!("curl -s --interface 10.77.0.{n} --limit-rate 1M --retry 99 {url}");
        rack.daemon(&format!("{curl} > /dev/null"))
    };
    let crowd = (100..100 + PLACES + 6).map(one).collect();
    let established = format!(
        "ip netns exec {} ss -Htn state established '( sport = :8080 )' | grep -c ' 10.77.0.1[0-9][0-9]:' || true",
        rack.server
    );
    until(
        "a crowd with every place",
        || must(&established),
        || must(&established).trim().parse() == Ok(PLACES),
    );
    crowd
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, busybox-static, curl, a kernel"]
fn an_ipxe_of_bios_that_is_told_to_come_back_does_so_for_kernel_and_initramfs() {
    is_told_to_come_back(Firmware::Bios);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, busybox-static, curl, a kernel"]
fn an_ipxe_of_uefi_that_is_told_to_come_back_does_so_for_kernel_and_initramfs() {
    is_told_to_come_back(Firmware::Uefi);
}

fn is_told_to_come_back(firmware: Firmware) {
    let scratch = tempfile::tempdir().unwrap();
    let large = scratch.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(4 << 30).unwrap();
    let [kernel, initrd] = images(scratch.path());
    let rack = Rack::new(&[kernel, initrd, ("large.img", large)]);
    let director = &rack.director;
    plan_crowd(&rack);
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x57]);
    director.clients.lock().unwrap().insert(mac, host(A, true));
    let told = |name: &'static str| {
        move |what: &What| {
            matches!(what, What::HttpFile { path, peer, status: 503, .. }
                if *peer == A && path.strip_prefix("/boot/file/") == Some(name))
        }
    };
    let fetched = |name: &'static str| {
        move |what: &What| {
            matches!(what, What::HttpFile { path, peer, status: 200, .. }
                if *peer == A && path.strip_prefix("/boot/file/") == Some(name))
        }
    };

    let mut machine = Machine::start(&rack, firmware, mac, None);
    director.wait("DISCOVER", PATIENCE, |event| {
        event.mac == Some(mac) && matches!(event.what, What::DhcpIn { .. })
    });
    let others = crowd(&rack);
    until(
        "iPXE, told twice to come back for its kernel",
        || director.show(),
        || director.count(told("vmlinuz")) >= 2,
    );
    assert_eq!(director.count(fetched("vmlinuz")), 0, "{}", director.show());
    // It is stopped before it has the end of its kernel, which is on its way.
    let (kernel, pid) = (fetched("vmlinuz"), machine.pid());
    let stop = nix::sys::signal::Signal::SIGSTOP;
    director.when(move |event| kernel(&event.what), move || nix::sys::signal::kill(pid, stop).unwrap());
    drop(others);
    director.wait("kernel", PATIENCE, |event| fetched("vmlinuz")(&event.what));

    // Its place is kept for a moment only: others have it before it asks for its initramfs.
    assert_eq!(director.count(fetched("initrd.img")), 0, "it was stopped in time");
    let others = crowd(&rack);
    machine.signal("CONT");
    until(
        "iPXE, told twice to come back for its initramfs",
        || director.show(),
        || director.count(told("initrd.img")) >= 2,
    );
    drop(others);
    machine.says("DZT-END", PATIENCE, || director.show());
    let scripts = director.count(|what| matches!(what, What::Script { peer, .. } if *peer == A));
    assert_eq!(scripts, 1, "it came back for the files alone:\n{}", director.show());
    let broken = director.count(|what| matches!(what, What::HttpBroken { peer, .. } if *peer == A));
    assert_eq!(broken, 0, "{}", director.show());
    eprintln!(
        "{firmware:?}: iPXE was told to come back {} times for its kernel, {} for its initramfs, and booted after {:.0} s",
        director.count(told("vmlinuz")),
        director.count(told("initrd.img")),
        machine.start.elapsed().as_secs_f64()
    );
}
