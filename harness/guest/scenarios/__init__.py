"""Workloads with a script of their own, one module each."""
