//! The files of `assets/`, compiled in, so that a built program needs no checkout beside it.

/// Path, mode and content of each file laid over the host's packages.
pub(crate) const HOST_OVERLAY: &[(&str, u32, &str)] = &[
    ("etc/fstab", 0o644, include_str!("../assets/host/overlay/etc/fstab")),
    ("etc/hosts", 0o644, include_str!("../assets/host/overlay/etc/hosts")),
    (
        "etc/initramfs-tools/conf.d/dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/initramfs-tools/conf.d/dayzero.conf"),
    ),
    ("etc/lvm/lvm.conf", 0o644, include_str!("../assets/host/overlay/etc/lvm/lvm.conf")),
    (
        "etc/modprobe.d/dayzero-kvm.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/modprobe.d/dayzero-kvm.conf"),
    ),
    (
        "etc/modprobe.d/dayzero-net.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/modprobe.d/dayzero-net.conf"),
    ),
    (
        "etc/modprobe.d/dayzero-quiet.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/modprobe.d/dayzero-quiet.conf"),
    ),
    ("etc/multipath.conf", 0o644, include_str!("../assets/host/overlay/etc/multipath.conf")),
    (
        "etc/ssh/sshd_config.d/dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/ssh/sshd_config.d/dayzero.conf"),
    ),
    (
        "etc/sysctl.d/50-dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/sysctl.d/50-dayzero.conf"),
    ),
    (
        "etc/systemd/journald.conf.d/dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/systemd/journald.conf.d/dayzero.conf"),
    ),
    (
        "etc/systemd/system.conf.d/dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/systemd/system.conf.d/dayzero.conf"),
    ),
    (
        "etc/systemd/system/libvirtd.service.d/dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/systemd/system/libvirtd.service.d/dayzero.conf"),
    ),
    (
        "etc/systemd/system/multipathd.service",
        0o644,
        include_str!("../assets/host/overlay/etc/systemd/system/multipathd.service"),
    ),
    (
        "etc/systemd/system/serial-getty@.service.d/dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/systemd/system/serial-getty@.service.d/dayzero.conf"),
    ),
    (
        "etc/systemd/system/ssh.service.d/dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/systemd/system/ssh.service.d/dayzero.conf"),
    ),
    (
        "etc/systemd/system/systemd-timesyncd.service.d/dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/systemd/system/systemd-timesyncd.service.d/dayzero.conf"),
    ),
    (
        "etc/systemd/timesyncd.conf.d/dayzero.conf",
        0o644,
        include_str!("../assets/host/overlay/etc/systemd/timesyncd.conf.d/dayzero.conf"),
    ),
    (
        "usr/lib/systemd/system/dayzero-agent.service",
        0o644,
        include_str!("../assets/host/overlay/usr/lib/systemd/system/dayzero-agent.service"),
    ),
    (
        "usr/lib/systemd/system/dayzero-growfs.service",
        0o644,
        include_str!("../assets/host/overlay/usr/lib/systemd/system/dayzero-growfs.service"),
    ),
    (
        "usr/lib/systemd/system/dayzero-libvirt-probe.service",
        0o644,
        include_str!("../assets/host/overlay/usr/lib/systemd/system/dayzero-libvirt-probe.service"),
    ),
    (
        "usr/lib/systemd/system/dayzero-libvirt-probe.timer",
        0o644,
        include_str!("../assets/host/overlay/usr/lib/systemd/system/dayzero-libvirt-probe.timer"),
    ),
];

/// Debian packages of a KVM host.
pub(crate) const HOST_PACKAGES: &str = include_str!("../assets/host/packages.list");
/// What dpkg does not unpack there.
pub(crate) const HOST_EXCLUDES: &str = include_str!("../assets/host/exclude.list");
/// systemd units that never start there.
pub(crate) const HOST_MASKED: &str = include_str!("../assets/host/mask.list");
/// Turns installed packages into the host's tree.
pub(crate) const HOST_CUSTOMIZE: &str = include_str!("../assets/host/customize.sh");
/// GRUB's script on each host's ESP.
pub(crate) const HOST_GRUB: &str = include_str!("../assets/host/grub.cfg");
/// The kernel's command line there, without `root=`.
pub(crate) const HOST_CMDLINE: &str = include_str!("../assets/host/cmdline.txt");
/// PID 1 of its initial RAM disk.
pub(crate) const HOST_INIT: &str = include_str!("../assets/host/initrd/init.sh");
/// Modules of that.
pub(crate) const HOST_INITRD_MODULES: &str = include_str!("../assets/host/initrd/modules.list");
/// Modules of the discovery image.
pub(crate) const DISCOVERY_MODULES: &str = include_str!("../assets/discovery/modules.list");
/// PID 1 of the tiny guest.
pub(crate) const TINY_INIT: &str = include_str!("../assets/tiny/init.sh");
/// Its DHCP client's script.
pub(crate) const TINY_UDHCPC: &str = include_str!("../assets/tiny/udhcpc.sh");
/// Its kernel modules.
pub(crate) const TINY_MODULES: &str = include_str!("../assets/tiny/modules.list");
/// GRUB's script on the appliance's ESP.
pub(crate) const APPLIANCE_GRUB: &str = include_str!("../assets/appliance/grub.cfg");
/// The configuration that `dayzero serve` has there, until a person changes it.
pub(crate) const APPLIANCE_SERVE: &str = include_str!("../assets/appliance/serve.toml");
/// What a person may write about its addresses.
pub(crate) const APPLIANCE_NETWORK: &str = include_str!("../assets/appliance/network.conf.example");
/// Foreign packages in it.
pub(crate) const APPLIANCE_PACKAGES: &str = include_str!("../assets/appliance/packages.list");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::entries;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_file_of_the_overlay_is_compiled_in() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/host/overlay");
        let mut found = BTreeSet::new();
        let mut todo = vec![base.clone()];
        while let Some(directory) = todo.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    todo.push(entry.path());
                } else {
                    found.insert(entry.path().strip_prefix(&base).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let listed: BTreeSet<_> = HOST_OVERLAY.iter().map(|(path, ..)| (*path).to_owned()).collect();
        assert_eq!(found, listed);
    }

    #[test]
    fn the_overlay_opens_no_door() {
        let all: String = HOST_OVERLAY.iter().map(|(_, _, content)| *content).collect();
        for word in
            ["PermitRootLogin yes", "PasswordAuthentication yes", "autologin", "NOPASSWD", "BEGIN OPENSSH"]
        {
            assert!(!all.contains(word), "{word}");
        }
        assert!(all.contains("PermitRootLogin no") && all.contains("PasswordAuthentication no"));
    }

    #[test]
    fn the_host_has_what_a_kvm_host_needs_and_no_second_owner_of_its_network() {
        let packages: BTreeSet<_> = entries(HOST_PACKAGES).collect();
        for needed in [
            "qemu-system-x86",
            "libvirt-daemon-system",
            "open-iscsi",
            "multipath-tools",
            "lvm2",
            "linux-image-amd64",
        ] {
            assert!(packages.contains(needed), "{needed}");
        }
        for wrong in ["ifupdown", "network-manager", "lldpd", "cloud-init", "grub-pc"] {
            assert!(!packages.contains(wrong), "{wrong}");
        }
    }
}
