//! Boot by IPv6 alone: clients that we did not write, down to our loader's script.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dayzero_model::MacAddr;
use dayzero_model::boot::BootAction;
use dayzero_model::event::What;
use dayzero_pxe::{NameZone, PxeConfig, PxeEvent};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::machine::{Firmware, Machine};
use crate::machines::PATIENCE;
use crate::rack::{Rack, SERVER, host, loaders, must};
use crate::segments::{networkd_six, with_ipv6};

const SOON: Duration = Duration::from_secs(20);
const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
/// fd77::10.77.0.11
const A6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0x0a4d, 11);
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 6, 0x11]);

/// A certificate of nobody, for the TLS listener.
fn with_tls(config: &mut PxeConfig) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    must(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=lab -days 2 \
         -keyout {at}/key.pem -out {at}/cert.pem 2>/dev/null"
    ));
    let certificate = CertificateDer::from_pem_file(dir.path().join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.path().join("key.pem")).unwrap();
    let server = rustls::ServerConfig::builder().with_no_client_auth();
    config.tls = Some(Arc::new(server.with_single_cert(vec![certificate], key).unwrap()));
}

/// The clients' device is host1, and has got its address, and was told this, by DHCPv6.
fn addressed(tune: impl FnOnce(&mut PxeConfig), told: &str) -> Rack {
    let rack = Rack::tuned(&[], |config| {
        with_ipv6(config);
        tune(config);
    });
    rack.without_ipv4();
    rack.director.clients.lock().unwrap().insert(MAC, host(A, true));
    rack.become_client("mgmt", MAC);
    let ns = &rack.client;
    must(&format!(
        "for i in $(seq 100); do ip -n {ns} -6 addr show dev mgmt scope link | grep -q tentative || break; sleep 0.1; done"
    ));
    let script = "#!/bin/sh\n[ -n \"$new_ip6_address\" ] && ip addr add $new_ip6_address/64 dev mgmt nodad\n\
                  echo \"$reason $new_ip6_address dns=$new_dhcp6_name_servers search=$new_dhcp6_domain_search\"\nexit 0\n";
    std::fs::write(rack.dir.path().join("six.sh"), script).unwrap();
    must(&format!("chmod 755 {}/six.sh", rack.dir.path().display()));
    let mut dhclient = rack.daemon("dhclient -6 -1 -d -D LL -lf $PWD/l6 -pf $PWD/p6 -sf $PWD/six.sh mgmt");
    dhclient.says("BOUND6 fd77::a4d:b ");
    dhclient.says(told);
    drop(dhclient);
    rack
}

/// Our DNS for the management network, by both families.
fn with_names(config: &mut PxeConfig) {
    let mgmt = &mut config.interfaces[0].network;
    mgmt.dns = vec![SERVER];
    config.names = NameZone {
        domain: "lab.example".into(),
        names: vec![("host1".parse().unwrap(), vec![A.into(), A6.into()])],
        prefixes: vec![mgmt.prefix],
        prefixes6: mgmt.prefix6.into_iter().collect(),
    };
}

#[test]
#[ignore = "needs root, nftables, isc-dhcp-client, bind9-dnsutils, systemd"]
fn dhclient_and_networkd_are_told_our_dns_and_dig_asks_it_by_ipv6() {
    let rack = addressed(with_names, "dns=fd77::a4d:2 search=lab.example");
    for (question, want) in [
        ("host1.lab.example AAAA", "fd77::a4d:b"),
        ("+tcp host1.lab.example AAAA", "fd77::a4d:b"),
        ("host1.lab.example A", "10.77.0.11"),
        ("ns.lab.example AAAA", "fd77::a4d:2"),
        ("-x fd77::a4d:b", "host1.lab.example."),
        ("+tcp -x fd77::a4d:b", "host1.lab.example."),
        ("+noall +comments debian.org", "status: REFUSED"),
        ("+noall +comments -x fd77::a4d:c", "status: NXDOMAIN"),
        ("+noall +comments -x fd78::1", "status: REFUSED"),
    ] {
        let short = if question.contains("noall") { "" } else { "+short" };
        let done = rack.client(&format!("dig -6 @fd77::a4d:2 +tries=2 +time=2 {short} {question} 2>&1"));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.contains(want), "{question}: {said}");
    }

    rack.become_client("mgmt", MAC);
    let mut networkd = rack.daemon(&format!("unshare -m sh {}", networkd_six(&rack)));
    networkd.says("fd77::a4d:b/128");
    // What it keeps for its resolver.
    let links = rack.dir.path().join("links");
    let kept = || {
        let files = std::fs::read_dir(&links).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect::<String>()
    };
    let has = |told: &str| told.contains("DNS=fd77::a4d:2\n") && told.contains("DOMAINS=lab.example\n");
    let begun = Instant::now();
    while !has(&kept()) {
        assert!(begun.elapsed() < SOON, "{}\n{}", kept(), networkd.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs root, nftables, isc-dhcp-client, curl, openssl"]
fn curl_gets_the_script_and_files_by_ipv6() {
    let rack = addressed(with_tls, "dns= search=\n");
    let curl = |arguments: &str| {
        let done =
            rack.client(&format!("curl -6 -s -k -w '\\n%{{http_code}} %{{size_download}}' {arguments}"));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    for at in ["http://[fd77::a4d:2]:8080", "https://[fd77::a4d:2]:8445"] {
        let script = curl(&format!("-g '{at}/boot/script?mac={MAC}'"));
        let kernel = "kernel http://[fd77::a4d:2]:8080/boot/file/vmlinuz initrd=initrd.img ";
        assert!(script.starts_with("#!ipxe\n") && script.contains(kernel), "{script}");
        assert!(!script.contains("10.77.0.2"), "nothing by IPv4: {script}");
        for (arguments, want) in [
            (format!("-g -o f {at}/boot/file/vmlinuz"), "\n200 700000"),
            (format!("-g -o f -r 7-13 {at}/boot/file/vmlinuz"), "\n206 7"),
            (format!("-g -o f {at}/images/chunks/ab/abcd"), "\n200 3000000"),
            (format!("-g -o f {at}/boot/file/nothing"), "\n404 "),
        ] {
            let got = curl(&arguments);
            assert!(got.contains(want), "{arguments}: {got}, not {want}");
        }
    }
    let known = |event: &PxeEvent| {
        event.mac == Some(MAC)
            && event.host.is_some()
            && matches!(&event.what, What::Script { peer, .. } if *peer == IpAddr::V6(A6))
    };
    rack.director.wait("script of a peer whose MAC is known", SOON, known);
}

#[test]
#[ignore = "needs root, nftables, isc-dhcp-client, curl, tftp-hpa, atftp, busybox-static"]
fn tftp_clients_get_a_loader_by_ipv6() {
    let rack = addressed(|_| (), "dns= search=\n");
    let loader = std::fs::read(loaders().join("snponly.efi")).unwrap();
    let commands = [
        "curl -6 -g -sS -o out 'tftp://[fd77::a4d:2]/snponly.efi'",
        "curl -6 -g -sS --tftp-blksize 65464 -o out 'tftp://[fd77::a4d:2]/snponly.efi'",
        "tftp -6 -m binary fd77::a4d:2 -c get snponly.efi out",
        "atftp --option 'blksize 1448' --option 'windowsize 8' -g -r snponly.efi -l out fd77::a4d:2",
        "busybox tftp -b 1448 -g -r snponly.efi -l out fd77::a4d:2",
    ];
    for command in commands {
        let done = rack.client(&format!("rm -f out; {command}"));
        let got = std::fs::read(rack.dir.path().join("out")).unwrap_or_default();
        assert!(got == loader, "{command}: {} bytes: {}", got.len(), String::from_utf8_lossy(&done.stderr));
    }
    let all = |director: &crate::rack::Director| {
        director
            .count(|what| matches!(what, What::TftpEnd { file, error: None, .. } if file == "snponly.efi"))
    };
    let known =
        |event: &PxeEvent| event.mac == Some(MAC) && matches!(&event.what, What::TftpEnd { error: None, .. });
    rack.director.wait("a transfer of a peer whose MAC is known", SOON, known);
    // The last client is gone before its last acknowledgement is told.
    let begun = Instant::now();
    while all(&rack.director) < commands.len() && begun.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(all(&rack.director), commands.len(), "{}", rack.director.show());
}

/// Down to our loader, which ran and fetched its script; nothing of it by IPv4.
fn boots(firmware: Firmware, loader: &str) {
    let rack = Rack::tuned(&[], with_ipv6);
    rack.without_ipv4();
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 6, firmware as u8 + 1]);
    rack.director.clients.lock().unwrap().insert(mac, host(A, true));
    let machine = Machine::start(&rack, firmware, mac, None);
    let director = &rack.director;
    let wait = |what: &str, fits: &dyn Fn(&PxeEvent) -> bool| {
        director.wait(what, PATIENCE, fits).duration_since(machine.start).as_secs_f64()
    };
    let told = wait("boot file by DHCPv6", &|e| {
        e.mac == Some(mac)
            && matches!(&e.what, What::DhcpOut { file: Some(file), .. } if file.ends_with(loader))
    });
    let loaded = wait("our loader", &|e| {
        e.mac == Some(mac)
            && match &e.what {
                What::TftpEnd { file, error: None, .. } => file == loader,
                What::HttpFile { path, peer, status: 200, bytes, .. } => {
                    path.ends_with(loader) && *peer == IpAddr::V6(A6) && *bytes > 0
                }
                _ => false,
            }
    });
    let script = wait("its script", &|e| {
        let discovery = matches!(&e.what, What::Script { action: BootAction::Discovery { .. }, peer } if *peer == IpAddr::V6(A6));
        e.mac == Some(mac) && discovery
    });
    wait(
        "the kernel that the script names",
        &|e| matches!(&e.what, What::HttpFile { path, peer: IpAddr::V6(_), .. } if path == "/boot/file/vmlinuz"),
    );
    eprintln!("{firmware:?} by IPv6: told {told:.1}, loader {loaded:.1}, script {script:.1} s");
    let failed = director.count(|what| matches!(what, What::TftpBroken { .. }));
    assert_eq!(failed, 0, "no transfer is shown as failed:\n{}", director.show());
    let by_ipv4 = |what: &What| matches!(what, What::DhcpIn { kind, .. } if kind == "DISCOVER");
    assert_eq!(director.count(by_ipv4), 0, "{}", director.show());
}

#[test]
#[ignore = "needs root, nftables, qemu-system-x86, ovmf"]
fn a_uefi_machine_boots_by_pxe_over_ipv6() {
    boots(Firmware::UefiSix, "snponly.efi");
}

#[test]
#[ignore = "needs root, nftables, qemu-system-x86, ovmf"]
fn a_uefi_machine_boots_by_http_over_ipv6() {
    boots(Firmware::UefiHttpSix, "snponly.efi");
}

#[test]
#[ignore = "needs root, nftables, qemu-system-x86, ipxe-qemu, seabios"]
fn an_ipxe_in_the_nic_boots_our_loader_over_ipv6() {
    boots(Firmware::Bios, "undionly.kpxe");
}
