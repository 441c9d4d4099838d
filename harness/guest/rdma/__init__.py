"""Verbs: connections, registrations, transfers, RDMA netlink."""
