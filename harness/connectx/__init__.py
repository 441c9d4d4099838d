"""Emulated ConnectX card: a process of its own that knows no VM and no pytest."""
