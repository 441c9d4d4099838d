"""Firmware objects and values: QPs, CQs, EQs, SRQs, mkeys, umems, operations."""
