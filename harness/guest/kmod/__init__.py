"""The kernel module mlx5_odp_test: its netlink family, its use in a case, and a command line."""
