"""Firmware objects: QPs, CQs, EQs, mkeys, their table."""
