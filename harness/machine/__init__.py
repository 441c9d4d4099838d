"""QEMU machines: images, snapshots, a running guest, its console."""
