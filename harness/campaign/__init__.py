"""Campaigns: many runs that answer one question, as if a patch is a regression."""
