#!/bin/sh
# Boot any disk image with an emulated ConnectX-5: sh docs/examples/card_in_plain_qemu.sh IMAGE [KERNEL]
#
# QEMU must be 10.1 or newer. KERNEL (default: newest) is the kernel that runs in IMAGE: the card reads its structures
# from that kernel's headers. In the guest: modprobe mlx5_ib; rdma link
set -eu
image=$1 kernel=${2:-newest}
top=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
folder=$(mktemp -d)

# It prints QEMU's options once it listens, and runs until QEMU has gone.
"$top/odp-harness" card --model connectx-5 --kernel "$kernel" --socket "$folder/card" --log "$folder/card.jsonl" \
    >"$folder/options" &
card=$!
trap 'kill $card 2>/dev/null || true; echo "conversation: $folder/card.jsonl"' EXIT
until [ -s "$folder/options" ]; do
    kill -0 $card || exit 1
    sleep 1
done

# Guest memory, a PCIe root port and the card; quoted for a shell.
eval "set -- $(cat "$folder/options")"
qemu-system-x86_64 -accel kvm -accel tcg -nographic -drive "file=$image,if=virtio,snapshot=on" "$@"
