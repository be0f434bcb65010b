#!/bin/sh
# PID 1 of the tiny guest: says on its console who it is, which address it got, and what is on its disk.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
while read -r module; do
    insmod "/lib/modules/$module" 2>/dev/null
done < /etc/modules

name=$(cat /sys/class/dmi/id/product_serial 2>/dev/null)
case $name in '' | 'Not Specified' | None | 0) name=unnamed ;; esac
hostname "$name"
echo "DAYZERO-VM name=$name booted kernel=$(uname -r)"

# A press of the virtual power button: the only event of that device.
for event in /sys/class/input/event*; do
    read -r label < "$event/device/name" || continue
    [ "$label" = "Power Button" ] || continue
    (dd if="/dev/input/${event##*/}" of=/dev/null bs=24 count=1 2>/dev/null && echo "DAYZERO-VM name=$name powering off" && poweroff -f) &
done

# What it started from: the whole template, as it lies on the volume (nothing here writes to it).
sum=none
if [ -b /dev/vda ]; then
    sum=$(dd if=/dev/vda bs=64k count=@BLOCKS@ 2>/dev/null | sha256sum | cut -d ' ' -f 1)
fi

nic=
for path in /sys/class/net/*; do
    [ -e "$path/device" ] && nic=${path##*/} && break
done
address=none
if [ -n "$nic" ]; then
    ip link set "$nic" up
    ip link set lo up
    until udhcpc -i "$nic" -s /etc/udhcpc -x "hostname:$name" -t 3 -T 2 -A 1 -n -q >/dev/null 2>&1; do
        echo "DAYZERO-VM name=$name waits for an address on $nic"
    done
    address=$(cat /run/address)
fi
echo "DAYZERO-VM name=$name address=$address disk-sha256=$sum"

# A sign of life that reads the disk each time: a volume whose paths are gone shows as a missing tick.
tick=0
while :; do
    sleep 5
    tick=$((tick + 1))
    echo 1 > /proc/sys/vm/drop_caches
    if dd if=/dev/vda of=/dev/null bs=4k count=16 2>/dev/null; then disk=readable; else disk=unreadable; fi
    echo "DAYZERO-VM name=$name tick=$tick disk=$disk"
done
