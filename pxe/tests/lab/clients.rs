//! DHCP and HTTP clients that we did not write.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use dayzero_model::MacAddr;
use dayzero_model::boot::Client;
use dayzero_model::event::What;
use dayzero_pxe::PxeEvent;

use crate::rack::{Rack, host};

const SOON: Duration = Duration::from_secs(20);
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x11]);
const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

pub(crate) fn sent(kind: &'static str) -> impl Fn(&PxeEvent) -> bool {
    move |event| matches!(&event.what, What::DhcpOut { kind: k, .. } if k == kind)
}

pub(crate) fn udhcpc(rack: &Rack, device: &str, more: &str) -> (bool, String) {
    let script = rack.dir.path().join("udhcpc.sh");
    let text = "#!/bin/sh\necho \"$1 ip=$ip mask=$subnet router=$router server=$serverid lease=$lease domain=$domain\"\n\
                [ \"$1\" = bound ] && ip addr add $ip/24 dev $interface\nexit 0\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let command = format!("busybox udhcpc -f -n -q -t 3 -T 1 -i {device} -s {} {more}", script.display());
    let done = rack.client(&command);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.success(), said)
}

#[test]
#[ignore = "needs root, busybox-static, isc-dhcp-client"]
fn udhcpc_and_dhclient_get_what_the_plan_says() {
    let rack = Rack::new(&[]);
    rack.director.clients.lock().unwrap().insert(MAC, host(A, false));
    rack.become_client("mgmt", MAC);
    let (ok, said) = udhcpc(&rack, "mgmt", "-R");
    assert!(
        ok && said.contains("bound ip=10.77.0.11 mask=255.255.255.0 router= server=10.77.0.2 lease=86400"),
        "{said}"
    );

    let dhclient = "dhclient -4 -1 -d -v -lf $PWD/leases -pf $PWD/pid -sf $PWD/udhcpc.sh mgmt & p=$!
        for i in $(seq 200); do grep -q 'fixed-address' leases 2>/dev/null && break; sleep 0.05; done; kill $p; cat leases";
    rack.become_client("mgmt", MAC);
    let done = rack.client(dhclient);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("fixed-address 10.77.0.11;"), "{said}");
    assert!(said.contains("dhcp-server-identifier 10.77.0.2;") && said.contains("host1"), "{said}");

    let (ok, said) = udhcpc(&rack, "guest", "");
    assert!(ok && said.contains("bound ip=10.77.100.50") && said.contains("router=10.77.100.1"), "{said}");
    let (ok, said) = udhcpc(&rack, "guest", "");
    assert!(ok && said.contains("ip=10.77.100.50"), "the same address again: {said}");
    rack.director
        .clients
        .lock()
        .unwrap()
        .insert(MAC, Client::Vm { name: "hello".parse().unwrap(), address: None });
    rack.become_client("guest", MAC);
    let (ok, said) = udhcpc(&rack, "guest", "");
    assert!(ok && said.contains("bound ip=10.77.100.51"), "another client, another address: {said}");
}

#[test]
#[ignore = "needs root, curl"]
fn whoever_asks_for_what_is_not_there_does_not_fill_the_recorder() {
    let rack = Rack::new(&[]);
    rack.client("ip addr add 10.77.0.99/24 dev mgmt");
    rack.client(
        "curl -s -o /dev/null 'http://10.77.0.2:8080/boot/file/none[1-60]'; curl -s 'tftp://10.77.0.2/none[1-60]'",
    );
    let by_http = |what: &What| matches!(what, What::HttpFile { status: 404, .. });
    let by_tftp = |what: &What| matches!(what, What::TftpBroken { .. });
    let last = |e: &PxeEvent| matches!(&e.what, What::TftpBroken { file, .. } if file == "none10");
    rack.director.wait("the last that is told", SOON, last);
    let told = (rack.director.count(by_http), rack.director.count(by_tftp));
    assert_eq!(told, (10, 10), "{}", rack.director.show());
}

#[test]
#[ignore = "needs root, busybox-static"]
fn an_unknown_client_gets_nothing_and_is_recorded() {
    let rack = Rack::new(&[]);
    rack.become_client("mgmt", MAC);
    let (ok, said) = udhcpc(&rack, "mgmt", "-V PXEClient:Arch:00000:UNDI:002001");
    assert!(!ok, "{said}");
    let pending = |event: &PxeEvent| {
        event.mac == Some(MAC)
            && matches!(&event.what, What::DhcpIgnored { reason, .. } if reason.contains("pending"))
    };
    rack.director.wait("record of the unknown client", SOON, pending);
    assert_eq!(
        rack.director.count(|what| matches!(what, What::DhcpOut { .. })),
        0,
        "{}",
        rack.director.show()
    );

    rack.director.clients.lock().unwrap().insert(MAC, host(A, false));
    let (ok, said) = udhcpc(&rack, "mgmt", "");
    assert!(ok, "the next DISCOVER after it was planned is answered: {said}");
    rack.director.wait("ACK", SOON, sent("ACK"));
}

#[test]
#[ignore = "needs root, curl"]
fn http_serves_what_is_named_and_nothing_else() {
    let rack = Rack::new(&[]);
    rack.director.clients.lock().unwrap().insert(MAC, host(A, true));
    let ns = &rack.client;
    crate::rack::must(&format!("ip -n {ns} addr add 10.77.0.11/24 dev mgmt"));
    let curl = |arguments: &str| {
        let done = rack
            .client(&format!("curl -s --path-as-is -w '\\n%{{http_code}} %{{size_download}}' {arguments}"));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let at = "http://10.77.0.2:8080";
    let script = curl(&format!("'{at}/boot/script?mac={MAC}'"));
    assert!(script.starts_with("#!ipxe\n") && script.contains("dayzero.boot=000000000000d15c"), "{script}");
    for (arguments, want) in [
        (format!("-o f {at}/boot/file/vmlinuz"), "\n200 700000"),
        (format!("-I -o f {at}/boot/file/vmlinuz"), "\n200 0"),
        (format!("-o f -r 7-13 {at}/boot/file/vmlinuz"), "\n206 7"),
        (format!("-o f -r 700000- {at}/boot/file/vmlinuz"), "\n416 0"),
        (format!("-o f {at}/boot/file/snponly.efi"), "\n200 "),
        (format!("-o f {at}/images/chunks/ab/abcd"), "\n200 3000000"),
        (format!("-o f {at}/images/chunks/ab/missing"), "\n404 "),
        (format!("-o f {at}/images/chunks"), "\n404 "),
        (format!("-o f {at}/images/../private"), "\n404 "),
        (format!("-o f {at}/images/%2e%2e/private"), "\n404 "),
        (format!("-o f {at}/images//etc/passwd"), "\n404 "),
        (format!("-o f {at}/boot/file/../../private"), "\n404 "),
        (format!("-o f '{at}/boot/script?mac=nonsense'"), "\n400 "),
        (format!("-o f '{at}/boot/script'"), "\n400 "),
        (format!("-o f -X POST -d x {at}/boot/file/vmlinuz"), "\n405 "),
        (format!("-o f -X DELETE {at}/images/chunks/ab/abcd"), "\n405 "),
        (format!("-o f {at}/"), "\n404 "),
    ] {
        let got = curl(&arguments);
        assert!(got.contains(want), "{arguments}: {got}, not {want}");
    }
    let etag = curl(&format!("-I {at}/boot/file/vmlinuz"));
    let etag = etag.lines().find_map(|l| l.strip_prefix("ETag: ")).expect("an ETag").trim().to_owned();
    assert!(curl(&format!("-o f -H 'If-None-Match: {etag}' {at}/boot/file/vmlinuz")).contains("\n304 0"));
    let stale = curl(&format!("-o f -H 'If-Range: \"x\"' -r 0-1 {at}/boot/file/vmlinuz"));
    assert!(stale.contains("\n200 700000"), "a range of another version is not served: {stale}");
    let whole = |event: &PxeEvent| matches!(&event.what, What::HttpFile { path, bytes: 700_000, status: 200, .. } if path == "/boot/file/vmlinuz");
    rack.director.wait("the kernel's event", SOON, whole);
}
