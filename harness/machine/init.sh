#!/bin/busybox sh
# First process of a machine: the root is a RAM overlay over two read-only disks, the kernel's own files
# (/dev/vdb) over the userland (/dev/vda).
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /user /kernel /ram /new
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
while read -r module; do $bb insmod "/modules/$module" || echo "init: $module did not load"; done < /modules/order
$bb mount -t erofs -o ro /dev/vda /user || echo "init: no userland"
$bb mount -t erofs -o ro /dev/vdb /kernel || echo "init: no kernel files"
$bb mount -t tmpfs -o size=75% ram /ram
$bb mkdir /ram/upper /ram/work
$bb mount -t overlay -o lowerdir=/kernel:/user,upperdir=/ram/upper,workdir=/ram/work overlay /new || echo "init: no root"
$bb cp -a /opt/odp /new/opt/odp
for fs in proc sys dev; do $bb mount --move /$fs /new/$fs; done
exec $bb switch_root /new /bin/sh /opt/odp/start.sh
