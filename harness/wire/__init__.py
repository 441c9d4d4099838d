"""Bytes and their structures.

No I/O except the cache of parsed headers; Python 3.9 and the standard library only.
"""
