#!/bin/sh
# PID 1 of an installed host's initial RAM disk: loads the disk's driver, mounts the root partition that the command line
# names by its GPT GUID, and hands over to systemd. No udev, no other file system, no shell for anybody.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

partuuid=
init=/sbin/init
for word in $(cat /proc/cmdline); do
    case $word in
    root=PARTUUID=*) partuuid=$(echo "${word#root=PARTUUID=}" | tr A-F a-f) ;;
    init=*) init=${word#init=} ;;
    esac
done
# On the disk, the first three fields of a GUID are little-endian.
p=$partuuid
wanted=${p:6:2}${p:4:2}${p:2:2}${p:0:2}${p:11:2}${p:9:2}${p:16:2}${p:14:2}${p:19:4}${p:24:12}

load_drivers() {
    # Most devices have no driver here, so that modprobe "fails": what counts is whether the root is found.
    find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u | xargs modprobe -a -q -b 2>/dev/null
    return 0
}

find_root() {
    for file in /sys/class/block/*/partition; do
        [ -e "$file" ] || continue
        part=${file%/partition}
        disk=$(cd -P "$part/.." && pwd)
        read -r number < "$file"
        read -r sector < "$disk/queue/logical_block_size"
        at=$((2 * sector + (number - 1) * 128 + 16))
        guid=$(dd if="/dev/${disk##*/}" bs=16 skip=$((at / 16)) count=1 2>/dev/null | hexdump -v -e '/1 "%02x"')
        if [ "$guid" = "$wanted" ]; then
            root=/dev/${part##*/}
            return 0
        fi
    done
    return 1
}

modprobe -a -q crc32c_intel crc32c_generic ext4
waited=0
until load_drivers && find_root; do
    sleep 0.2
    waited=$((waited + 1))
    if [ $((waited % 50)) = 49 ]; then
        echo "dayzero: no partition with the GUID '$partuuid' yet; partitions seen: $(cd /sys/class/block && echo *)"
    fi
    if [ $waited -gt 600 ]; then
        echo "dayzero: the root partition did not appear in two minutes: check the disk and its controller. Starting again."
        reboot -f
    fi
done

if ! mount -t ext4 -o rw,noatime,errors=remount-ro "$root" /root; then
    echo "dayzero: $root cannot be mounted: the messages above say why. Starting again in a minute."
    sleep 60
    reboot -f
fi
for at in proc sys dev; do
    mount -o move "/$at" "/root/$at"
done
exec switch_root /root "$init"
