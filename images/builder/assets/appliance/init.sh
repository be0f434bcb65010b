#!/bin/sh
# PID 1 of the appliance: finds its own disk, makes the data partition at the first start, sets the network that
# network.conf on the ESP says (or asks DHCP on every NIC), and keeps `dayzero serve` running. Nobody can log in here.
# busybox prefers its own programs of a name: those of e2fsprogs and util-linux are called by their paths.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
umask 022
say() { echo "appliance: $*" > /dev/console; }

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid dev /dev
mkdir -p /dev/pts
mount -t devpts -o nosuid,noexec devpts /dev/pts
mount -t tmpfs -o nosuid,nodev run /run
mount -t tmpfs -o nosuid,nodev tmp /tmp
hostname dayzero

partuuid=
for word in $(cat /proc/cmdline); do
    case $word in dayzero.files=*) partuuid=${word#dayzero.files=} ;; esac
done
# On the disk, the first three fields of a GUID are little-endian.
p=$(echo "$partuuid" | tr A-F a-f)
wanted=${p:6:2}${p:4:2}${p:2:2}${p:0:2}${p:11:2}${p:9:2}${p:16:2}${p:14:2}${p:19:4}${p:24:12}

load_drivers() {
    find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u | xargs modprobe -a -q -b 2>/dev/null
    return 0
}

# Sets $disk to the path in sysfs of the disk that the files partition lies on.
find_disk() {
    for file in /sys/class/block/*/partition; do
        [ -e "$file" ] || continue
        disk=$(cd -P "${file%/partition}/.." && pwd)
        read -r number < "$file"
        read -r sector < "$disk/queue/logical_block_size"
        at=$((2 * sector + (number - 1) * 128 + 16))
        guid=$(dd if="/dev/${disk##*/}" bs=16 skip=$((at / 16)) count=1 2>/dev/null | hexdump -v -e '/1 "%02x"')
        [ "$guid" = "$wanted" ] && return 0
    done
    return 1
}

# The device of partition number $1 of that disk.
part() {
    for file in "$disk"/*/partition; do
        read -r number < "$file"
        [ "$number" = "$1" ] && name=${file%/partition} && echo "/dev/${name##*/}" && return 0
    done
    return 1
}

# Whether $1 holds an ext file system: the magic number of its superblock.
has_ext4() { [ "$(dd if="$1" bs=1 skip=1080 count=2 2>/dev/null | hexdump -v -e '/1 "%02x"')" = 53ef ]; }

modprobe -a -q crc32c_intel crc32c_generic ext4 vfat nls_cp437 nls_ascii
waited=0
until load_drivers; find_disk; do
    sleep 0.2
    waited=$((waited + 1))
    [ $((waited % 50)) = 0 ] && say "no disk with the partition '$partuuid' yet; seen: $(cd /sys/class/block && echo *)"
done
device=/dev/${disk##*/}

# Before anything of this disk is mounted, so that the kernel reads the new table.
if ! part 4 >/dev/null; then
    say "first start: making the data partition on $device"
    # The image was smaller than this disk: the second partition table belongs to its end.
    /sbin/sfdisk -q --relocate gpt-bak-std "$device" >/dev/null 2>&1
    echo 'type=linux, name="dayzero-data"' | /sbin/sfdisk -q --append "$device" >/tmp/sfdisk 2>&1
    if ! part 4 >/dev/null; then
        say "no data partition could be made on $device: $(tail -n 2 /tmp/sfdisk | tr '\n' ' ') Starting again in a minute."
        sleep 60
        reboot -f
    fi
fi
mkdir -p /files /esp /data
mount -t ext4 -o ro,noatime "$(part 3)" /files || say "the partition with the boot files cannot be mounted"
mount -t vfat -o noatime,umask=077 "$(part 2)" /esp || say "the ESP cannot be mounted"
data=$(part 4)
if has_ext4 "$data"; then
    /sbin/e2fsck -p "$data" >/dev/null 2>&1
else
    /sbin/mke2fs -q -t ext4 -L dayzero-data "$data" </dev/null || say "the data partition cannot be made"
fi
if ! mount -t ext4 -o noatime,nosuid,nodev "$data" /data; then
    say "the data partition cannot be mounted: the messages above say why. Nothing is changed. Starting again in a minute."
    sleep 60
    reboot -f
fi
# The master key is not on the data partition: a copy of that alone opens nothing.
key=/esp/dayzero/master.key
if [ ! -s $key ]; then
    (umask 077; dd if=/dev/urandom bs=32 count=1 2>/dev/null > $key.new && sync && mv $key.new $key && sync)
fi

# network.conf: "MAC ADDRESS/PREFIX [GATEWAY]" or "MAC dhcp", a line each. A NIC without a line asks DHCP, if there is no
# file at all, and stays down otherwise.
ip link set lo up
conf=/esp/dayzero/network.conf
for path in /sys/class/net/*; do
    nic=${path##*/}
    [ -e "$path/device" ] || continue
    read -r mac < "$path/address"
    line=dhcp
    if [ -e $conf ]; then
        line=$(grep -i "^$mac " $conf | head -n 1 | cut -d ' ' -f 2-)
        [ -n "$line" ] || continue
    fi
    ip link set "$nic" up
    if [ "$line" = dhcp ]; then
        udhcpc -i "$nic" -s /etc/udhcpc -x hostname:dayzero -b -t 3 -T 2 >/dev/null 2>&1
    else
        # shellcheck disable=SC2086
        set -- $line
        ip addr add "$1" dev "$nic"
        [ -n "${2:-}" ] && ip route add default via "$2"
    fi
done

stop() {
    say "stopping ($1)"
    kill -TERM "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    sync
    umount /data /esp /files 2>/dev/null
    [ "$1" = "power button" ] && poweroff -f
    reboot -f
}
trap 'stop "power button"' USR1
modprobe -a -q button evdev
for event in /sys/class/input/event*; do
    grep -q '^Power Button' "$event/device/name" 2>/dev/null || continue
    (dd if="/dev/input/${event##*/}" of=/dev/null bs=24 count=1 2>/dev/null && kill -USR1 1) &
done

say "addresses: $(ip -o addr show scope global | sed 's/ *[0-9]*: *\([^ ]*\) *inet6* *\([^ ]*\).*/\1 \2/' | tr '\n' ' ')"
while :; do
    # shellcheck disable=SC2046
    /usr/bin/dayzero $(cat /etc/dayzero/serve.args) </dev/null >/dev/console 2>&1 &
    server=$!
    wait "$server"
    say "dayzero serve ended with $?; it is started again in 2 s"
    sleep 2
done
