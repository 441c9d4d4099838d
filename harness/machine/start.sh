# Second half of a guest's start, on its own userland: mounts, then the agent. When the agent exits, the guest powers off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM=linux
export PYTHONPATH=/opt/odp PYTHONHASHSEED=0 PYTHONUNBUFFERED=1
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/shm /dev/pts && mount -t tmpfs shm /dev/shm && mount -t devpts pts /dev/pts
mount -t tracefs trace /sys/kernel/tracing
mount -t debugfs debug /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
modprobe -a qemu_fw_cfg virtio_console
for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" = odp.replies ] && replies=/dev/${port##*/}
done
cd /
python3 -m harness.guest --requests /sys/firmware/qemu_fw_cfg/by_name/opt/odp/request/raw --replies "$replies"
echo "start: the agent ended with status $?"
echo o > /proc/sysrq-trigger
sleep 60
