# ib_write_bw on on-demand memory that is reclaimed meanwhile: pages go, the card faults. For `odp-harness trace`.
group=/sys/fs/cgroup/bw
mount -t cgroup2 none /sys/fs/cgroup
mkdir "$group"
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
(
    echo 0 >"$group/cgroup.procs"
    exec ib_write_bw --odp -d "$RDMA_DEVICE" -D 8 -s 65536 >/dev/null 2>&1
) &
(
    for _ in $(seq 30); do
        sleep 0.5
        # The kernel says "try again" when it found less to reclaim than was asked for.
        echo "8M swappiness=200" >"$group/memory.reclaim"
    done
) 2>/dev/null &
for _ in $(seq 8); do
    sleep 1
    ib_write_bw --odp -d "$RDMA_DEVICE" -D 8 -s 65536 127.0.0.1 && break
done | tail -3
