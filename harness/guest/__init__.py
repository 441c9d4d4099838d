"""Runs on the machine under test, with that machine's own Python: takes a case, runs it, answers."""
