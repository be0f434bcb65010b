//! The boot services against real clients, in network namespaces of their own: busybox udhcpc, dhclient,
//! systemd-networkd, perfdhcp, dhcrelay and dnsmasq as relays, dnsmasq and Kea as other servers, lldpd, Open vSwitch, dig, curl, and QEMU machines by BIOS and UEFI. All of them need root and Debian packages, so they are ignored
//! unless asked for: `cargo test -p dayzero-pxe --test lab -- --ignored --test-threads 1 --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod boot_faults;
mod clients;
mod doctor;
mod faults;
mod floods;
mod https;
mod machine;
mod machines;
mod proxy;
mod rack;
mod relays;
mod segments;
mod six;
mod waves;
