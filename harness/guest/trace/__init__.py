"""The bcc trace of page faults and invalidations."""
