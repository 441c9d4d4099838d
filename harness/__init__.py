"""odp-harness: a test harness for RDMA on-demand paging in the Linux kernel."""

__version__ = "0.2.0"
