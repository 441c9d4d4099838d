"""The test module mlx5_odp_test: loaded, set up, asked over generic netlink."""
