"""Data path: parse, execute and complete WQEs."""
