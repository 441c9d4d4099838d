# ib_write_bw on on-demand memory that is reclaimed meanwhile: pages go, the card faults. For `odp-harness trace`.
group=/sys/fs/cgroup/bw
mount -t cgroup2 none /sys/fs/cgroup
mkdir "$group"
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
(
    echo 0 >"$group/cgroup.procs"
    exec ib_write_bw --odp -d "$RDMA_DEVICE" -D 8 -s 65536 >/dev/null 2>&1
) &
# A page that waits in a CPU's batch for its place in the LRU lists is not reclaimed: drop_caches empties the batches of
# all CPUs. The kernel says "try again" when it found less to reclaim than was asked for.
while sleep 0.5; do
    echo 1 >/proc/sys/vm/drop_caches
    echo "8M swappiness=200" >"$group/memory.reclaim"
done 2>/dev/null &
reclaimer=$!
for _ in $(seq 60); do
    sleep 1
    ib_write_bw --odp -d "$RDMA_DEVICE" -D 8 -s 65536 127.0.0.1 && break
done | tail -3
kill "$reclaimer"
