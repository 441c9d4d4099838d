"""Firmware commands, one module per object."""
