#!/bin/sh
# Turns the installed packages into the host image's tree. Run by mmdebstrap as: customize.sh ROOT STAGING
set -eu
root=$1 staging=$2

# Names and numbers that must be each host's own are never part of an image.
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub
rm -f "$root"/etc/iscsi/initiatorname.iscsi "$root"/etc/hostid "$root"/etc/nvme/hostnqn "$root"/etc/nvme/hostid
rm -f "$root"/var/lib/systemd/random-seed "$root"/var/lib/dbus/machine-id "$root"/etc/hostname
rm -rf "$root"/var/lib/systemd/credential.secret "$root"/var/lib/libvirt/qemu/domain-* "$root"/etc/libvirt/secrets
: > "$root/etc/machine-id"
ln -s /etc/machine-id "$root/var/lib/dbus/machine-id"
chroot "$root" passwd -q -l root

# No network of libvirt's own, no filters that it would load one by one at its start.
rm -f "$root"/etc/libvirt/qemu/networks/autostart/* "$root"/etc/libvirt/qemu/networks/default.xml
rm -f "$root"/etc/libvirt/nwfilter/*.xml

cp -a --no-preserve=ownership "$staging/overlay/." "$root/"
mkdir -p "$root/etc/dayzero" "$root/usr/lib/dayzero" "$root/etc/multipath/conf.d"
install -d -m 0700 "$root/var/lib/dayzero"
install -d -m 0711 "$root/var/lib/libvirt/images"

while read -r unit; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done < "$staging/mask"
for unit in dayzero-agent.service dayzero-growfs.service; do
    ln -sf "/usr/lib/systemd/system/$unit" "$root/etc/systemd/system/multi-user.target.wants/$unit"
done
mkdir -p "$root/etc/systemd/system/getty.target.wants"
ln -sf /usr/lib/systemd/system/serial-getty@.service "$root/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service"
rm -f "$root"/etc/systemd/system/getty.target.wants/getty@tty1.service
ln -sf /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"

# The initial RAM disk was written before the overlay was there.
chroot "$root" update-initramfs -u -k all >/dev/null
rm -f "$root"/initrd.img* "$root"/vmlinuz*

# Indexes that apt can fetch again, logs of this build, caches.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/tmp/* "$root"/run/*
rm -f "$root"/var/lib/dpkg/*-old "$root"/etc/*- "$root"/var/lib/dpkg/status-old
rm -f "$root"/etc/resolv.conf "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/boot/System.map-*
mkdir -p "$root"/var/log/journal "$root"/var/cache/libvirt "$root"/var/log/libvirt "$root"/var/cache/ldconfig
rmdir "$root"/var/log/journal
