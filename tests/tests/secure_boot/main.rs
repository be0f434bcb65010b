//! Secure Boot against real firmware that enforces it (OVMF, its keys enrolled by `virt-fw-vars`): what is signed by the
//! site's key reaches our agent; what was changed, or never signed, is refused, and the flight recorder says so.
//!
//! The files are the product's: the discovery image by the builder, the signature by the site's key, names and GRUB's script
//! by control, DHCP, TFTP and HTTP by the boot services. Verdicts are the serial console's and the recorder's.
//! `cargo xtask test --all` sets what is needed. Namespaces are `dzt-secureboot-…`; everything ends with the test.

// A test that fails by a panic says where; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod forge;
mod machine;
mod site;

use dayzero_model::boot::Chain;
use dayzero_model::event::What;
use machine::{Firmware, Keys, Machine};
use site::{Site, got};

/// The agent's first line, and the one that it prints once it knows its boot.
const FIRST: &str = "dayzero-agent 0.1.0 starts";
const ENFORCED: &str = "dayzero-agent: the firmware enforces Secure Boot";
const KNOWS: &str = "dayzero-agent: boot 000000000000d15c by 52:54:00:77:05:01";
/// What OVMF says of a loader that it does not trust.
const DENIED: &str = "Access Denied";

/// The agent runs under Secure Boot, and learnt from us which boot it is.
fn boots(site: &Site, firmware: Firmware, keys: Keys) {
    let mut machine = Machine::start(site, firmware, keys);
    let first = machine.says(FIRST, site);
    machine.says(ENFORCED, site);
    let knows = machine.says(KNOWS, site);
    eprintln!("{firmware:?} {keys:?}: agent {first:.1} s, knows its boot {knows:.1} s");
    assert!(!machine.console().contains(DENIED), "{}", machine.console());
    assert_eq!(
        site.findings().iter().filter(|f| f.rule == "secure-boot-refused").count(),
        0,
        "{:?}",
        site.findings()
    );
}

/// The firmware, or shim, says `words`; no agent ever starts; the recorder names the file and `hop`.
fn refused(site: &Site, keys: Keys, words: &str, file: &str, hop: &str) {
    let mut machine = Machine::start(site, Firmware::Pxe, keys);
    let at = machine.says(words, site);
    site.wait("the loader whole", |what| got(what, file));
    // The firmware has given up and goes on to what is left: nothing started meanwhile.
    let console = machine.console();
    assert!(!console.contains("dayzero-agent") && !console.contains("Linux version"), "{console}");
    assert!(!site.saw(|what| matches!(what, What::Script { .. })), "{}", site.show());
    let findings = site.findings();
    let found = findings.iter().find(|finding| finding.rule == "secure-boot-refused");
    let found = found.unwrap_or_else(|| panic!("{findings:?}\n{}", site.show()));
    assert!(found.sentence.contains(file) && found.sentence.contains(hop), "{found:?}");
    eprintln!("{keys:?}: refused after {at:.1} s; recorder: {}", found.sentence);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, sbsigntool, virt-firmware"]
fn the_signed_image_starts_by_pxe() {
    boots(&Site::new(Chain::Uki), Firmware::Pxe, Keys::Site);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, sbsigntool, virt-firmware"]
fn the_signed_image_starts_by_http() {
    let site = Site::new(Chain::Uki);
    boots(&site, Firmware::Http, Keys::Site);
    assert!(site.saw(
        |what| matches!(what, What::HttpFile { path, status: 200, .. } if path == "/boot/file/uki.efi")
    ));
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, sbsigntool, virt-firmware"]
fn a_changed_initial_ram_disk_is_refused() {
    let site = Site::forged(Chain::Uki);
    refused(
        &site,
        Keys::Site,
        DENIED,
        "uki.efi",
        "the firmware: it does not know the site's key, or the file was changed",
    );
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, sbsigntool, virt-firmware"]
fn an_unsigned_loader_is_refused() {
    refused(
        &Site::new(Chain::Ipxe),
        Keys::Site,
        DENIED,
        "snponly.efi",
        "the firmware: nobody signed this loader",
    );
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, sbsigntool, virt-firmware"]
fn another_sites_signature_is_refused() {
    refused(&Site::new(Chain::Uki), Keys::Microsoft, DENIED, "uki.efi", "it does not know the site's key");
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, sbsigntool, virt-firmware"]
fn the_signed_image_starts_behind_shim_by_a_machine_owners_key() {
    boots(&Site::new(Chain::Mok), Firmware::Pxe, Keys::MicrosoftAndOwner);
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, sbsigntool, virt-firmware"]
fn shim_refuses_a_changed_initial_ram_disk() {
    let site = Site::forged(Chain::Mok);
    refused(
        &site,
        Keys::MicrosoftAndOwner,
        "Security Violation",
        "mok/grubx64.efi",
        "shim: it does not know the site's key",
    );
}

#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, sbsigntool, virt-firmware"]
fn debians_shim_grub_and_kernel_start_an_agent_that_nothing_checked() {
    let site = Site::new(Chain::Shim);
    boots(&site, Firmware::Pxe, Keys::Microsoft);
    for name in ["shim/vmlinuz", "shim/initrd.img"] {
        assert!(site.saw(|what| got(what, name)), "{name}");
    }
}

/// Why the last chain is marked "agent unverified": its firmware starts any initial RAM disk.
#[test]
#[ignore = "needs root, qemu-system-x86, ovmf, sbsigntool, virt-firmware"]
fn debians_chain_starts_a_changed_initial_ram_disk() {
    let site = Site::forged(Chain::Shim);
    let mut machine = Machine::start(&site, Firmware::Pxe, Keys::Microsoft);
    machine.says(FIRST, &site);
}
