#!/bin/sh
# Turns a tree of installed packages into the host image's tree: customize.sh ROOT OVERLAY MASKED-UNITS
# It runs nothing of the tree, so it needs no mounts.
set -eu
root=$1 overlay=$2 masked=$3

# Names and numbers that must be each host's own are never part of an image.
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub
rm -f "$root"/etc/iscsi/initiatorname.iscsi "$root"/etc/hostid "$root"/etc/nvme/hostnqn "$root"/etc/nvme/hostid
rm -f "$root"/var/lib/systemd/random-seed "$root"/var/lib/dbus/machine-id "$root"/etc/hostname
rm -rf "$root"/var/lib/systemd/credential.secret "$root"/etc/libvirt/secrets
: > "$root/etc/machine-id"
ln -s /etc/machine-id "$root/var/lib/dbus/machine-id"

# No network of libvirt's own, no filters that it would load one by one at its start.
rm -f "$root"/etc/libvirt/qemu/networks/autostart/* "$root"/etc/libvirt/qemu/networks/default.xml
rm -f "$root"/etc/libvirt/nwfilter/*.xml

cp -R --preserve=mode,links "$overlay/." "$root/"
mkdir -p "$root/usr/lib/dayzero"
install -d -m 0700 "$root/etc/dayzero" "$root/var/lib/dayzero"
install -d -m 0711 "$root/var/lib/libvirt/images"

units="$root/etc/systemd/system"
while read -r unit; do
    rm -f "$units"/*.wants/"$unit"
    ln -sf /dev/null "$units/$unit"
done < "$masked"
mkdir -p "$units/timers.target.wants"
ln -sf /usr/lib/systemd/system/dayzero-libvirt-probe.timer "$units/timers.target.wants/dayzero-libvirt-probe.timer"
for unit in dayzero-agent.service dayzero-growfs.service; do
    ln -sf "/usr/lib/systemd/system/$unit" "$units/multi-user.target.wants/$unit"
done
mkdir -p "$units/getty.target.wants"
ln -sf /usr/lib/systemd/system/serial-getty@.service "$units/getty.target.wants/serial-getty@ttyS0.service"
ln -sf /usr/lib/systemd/system/multi-user.target "$units/default.target"

# Indexes that apt can fetch again, logs of the installation, caches.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/tmp/* "$root"/run/*
rm -f "$root"/var/lib/dpkg/*-old "$root"/etc/*- "$root"/etc/resolv.conf
rm -f "$root"/initrd.img* "$root"/vmlinuz* "$root"/boot/System.map-* "$root"/etc/apt/apt.conf.d/99mmdebstrap
mkdir -p "$root"/var/cache/libvirt/qemu "$root"/var/log/libvirt/qemu "$root"/var/log/journal "$root"/var/cache/ldconfig
chmod 0755 "$root/usr/lib/dayzero"
# One place starts multipathd: after the network's owner, not before the local file systems.
rm -f "$units/sysinit.target.wants/multipathd.service"
ln -sf /etc/systemd/system/multipathd.service "$units/multi-user.target.wants/multipathd.service"
