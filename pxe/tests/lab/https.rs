//! HTTPS to loaders and firmware, with the certificates that the product makes: Debian 13's iPXE by BIOS and UEFI, and OVMF's
//! HTTP boot; and each of them where it does not trust us, which must cost no boot.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::Ordering;

use dayzero_model::event::What;
use dayzero_model::{MacAddr, Sha256};
use dayzero_pxe::{PxeConfig, PxeEvent};
use dayzero_trust::{KeySource, LoaderCa, SiteCa, Vault, boot_server_config};
use tempfile::TempDir;

use crate::machine::{Firmware, Machine};
use crate::machines::{PATIENCE, images};
use crate::rack::{Rack, SERVER, host, must};

const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const KERNEL: &str = "/boot/file/vmlinuz";
const INITRD: &str = "/boot/file/initrd.img";
const LOADER: &str = "/boot/file/snponly.efi";

/// Serves HTTPS as the appliance does; whom loaders are told to trust.
fn serve(config: &mut PxeConfig, authority: &LoaderCa, agents: &SiteCa) {
    let addresses = [IpAddr::V4(SERVER)];
    let (agents, loaders) = (agents.listener(&[], &addresses), authority.listener(&addresses));
    config.tls = Some(boot_server_config(agents.unwrap(), loaders.unwrap()).unwrap());
    config.loader_trust = Some(authority.fingerprint());
}

/// A site's authorities, new.
fn authorities(at: &Path) -> (LoaderCa, SiteCa) {
    let store = dayzero_store::Store::open(&at.join("store"), dayzero_store::Options::default()).unwrap();
    let vault = Vault::open(&store, &KeySource::File(at.join("key"))).unwrap();
    (LoaderCa::open(&vault).unwrap(), SiteCa::open(&vault).unwrap())
}

/// A rack with a host, its authority's certificate, and what must not be dropped before.
fn rack(mac: MacAddr, tune: impl FnOnce(&mut PxeConfig)) -> (Rack, String, TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let (authority, agents) = authorities(at);
    let rack = Rack::tuned(&images(at), |config| {
        serve(config, &authority, &agents);
        tune(config);
    });
    rack.director.clients.lock().unwrap().insert(mac, host(A, true));
    (rack, authority.certificate().to_owned(), scratch)
}

/// The certificate as OVMF is given it: a list of one X.509 signature (UEFI 2.10, section 32.4.1).
fn hold(rack: &Rack, pem: &str) {
    let at = rack.dir.path();
    std::fs::write(at.join("authority.pem"), pem).unwrap();
    must(&format!("cd {}; openssl x509 -in authority.pem -outform der -out authority.der", at.display()));
    let der = std::fs::read(at.join("authority.der")).unwrap();
    let length = |more: usize| u32::try_from(der.len() + more).unwrap().to_le_bytes();
    // EFI_CERT_X509_GUID, a5c059a1-94e4-4aa7-87b5-ab155c2bf072.
    let kind =
        [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
    let list = [&kind[..], &length(44), &[0; 4], &length(16), &[1; 16], &der].concat();
    std::fs::write(at.join("cacerts"), list).unwrap();
}

fn fetched(file: &'static str, by_tls: bool) -> impl Fn(&What) -> bool {
    move |what| {
        matches!(what, What::HttpFile { path, status: 200, bytes, tls, .. }
            if path == file && *bytes > 0 && *tls == by_tls)
    }
}

fn refused(what: &What) -> bool {
    matches!(what, What::TlsRefused { listener, .. } if listener == "HTTPS boot")
}

/// It runs our kernel; so many files came by HTTPS.
#[track_caller]
fn boots(rack: &Rack, mut machine: Machine, files: &[(&'static str, bool)]) {
    let director = &rack.director;
    let seconds = machine.says("DZT-END", PATIENCE, || director.show());
    eprintln!("init after {seconds:.1} s");
    for (file, tls) in files {
        let count = director.count(fetched(file, *tls));
        assert_eq!(count, 1, "{file} by HTTPS {tls}; events:\n{}", director.show());
        assert_eq!(director.count(fetched(file, !tls)), 0, "{file} twice; events:\n{}", director.show());
    }
    let failed = director.count(|what| matches!(what, What::HttpBroken { .. }));
    assert_eq!(failed, 0, "no transfer is shown as failed:\n{}", director.show());
}

fn loader(firmware: Firmware, last: u8) {
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, last]);
    let (rack, _, _scratch) = rack(mac, |_| ());
    let machine = Machine::start(&rack, firmware, mac, None);
    boots(&rack, machine, &[(KERNEL, true), (INITRD, true)]);
    assert_eq!(rack.director.count(refused), 0, "{}", rack.director.show());
}

#[test]
#[ignore = "needs root, qemu-system-x86, ipxe-qemu, seabios, a kernel"]
fn our_loader_fetches_by_https_what_its_bios_was_told_to_trust() {
    loader(Firmware::Bios, 0x71);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, a kernel"]
fn our_loader_fetches_by_https_what_edk2_was_told_to_trust() {
    loader(Firmware::Uefi, 0x72);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, a kernel"]
fn a_loader_that_does_not_trust_us_falls_back_and_the_recorder_sees_both() {
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x73]);
    let (rack, _, _scratch) = rack(mac, |config| config.loader_trust = Some(Sha256([7; 32])));
    let machine = Machine::start(&rack, Firmware::Uefi, mac, None);
    boots(&rack, machine, &[(KERNEL, false), (INITRD, false)]);
    assert!(rack.director.count(refused) >= 1, "{}", rack.director.show());
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, openssl, a kernel"]
fn uefi_boots_by_https_and_its_loader_trusts_what_it_trusts() {
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x74]);
    let (rack, pem, _scratch) = rack(mac, |_| ());
    hold(&rack, &pem);
    rack.director.trusting.store(true, Ordering::Relaxed);
    let machine = Machine::start(&rack, Firmware::UefiHttps, mac, None);
    boots(&rack, machine, &[(LOADER, true), (KERNEL, true), (INITRD, true)]);
    assert_eq!(rack.director.count(refused), 0, "{}", rack.director.show());
}

/// The plan says that it holds our authority; it holds another, or none.
fn next_try(firmware: Firmware, last: u8) {
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, last]);
    let (rack, _, _scratch) = rack(mac, |_| ());
    if firmware == Firmware::UefiHttps {
        let dir = tempfile::tempdir().unwrap();
        let (other, _) = authorities(dir.path());
        hold(&rack, other.certificate());
    }
    rack.director.trusting.store(true, Ordering::Relaxed);
    let mut machine = Machine::start(&rack, firmware, mac, None);
    rack.director.wait("an HTTPS address", PATIENCE, |event: &PxeEvent| {
        matches!(&event.what, What::DhcpOut { kind, file: Some(file), .. }
            if kind == "ACK" && file.starts_with("https://") && file.ends_with(LOADER))
    });
    machine.says("failed to load", PATIENCE, || rack.director.show());
    drop(machine);
    let machine = Machine::start(&rack, firmware, mac, None);
    boots(&rack, machine, &[(LOADER, false), (KERNEL, false), (INITRD, false)]);
    // Without any authority, EDK2 does not even connect.
    let broken = rack.director.count(refused);
    assert_eq!(broken > 0, firmware == Firmware::UefiHttps, "{}", rack.director.show());
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, a kernel"]
fn uefi_that_holds_no_authority_boots_by_http_at_its_next_try() {
    next_try(Firmware::UefiHttp, 0x75);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, openssl, a kernel"]
fn uefi_that_holds_another_authority_boots_by_http_at_its_next_try() {
    next_try(Firmware::UefiHttps, 0x77);
}

/// The loader's own DHCP answer would come too late, and nothing else tells it.
#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, a kernel"]
fn a_loader_that_firmware_fetched_by_http_is_told_http() {
    let mac = MacAddr([0x52, 0x54, 0, 0x77, 0, 0x76]);
    let (rack, _, _scratch) = rack(mac, |_| ());
    let machine = Machine::start(&rack, Firmware::UefiHttp, mac, None);
    boots(&rack, machine, &[(LOADER, false), (KERNEL, false), (INITRD, false)]);
    assert_eq!(rack.director.count(refused), 0, "it was not asked to: {}", rack.director.show());
}
