"""Gives a machine one RDMA device and takes it back."""
