"""The emulated card: a process of its own; knows no VM and no pytest."""
