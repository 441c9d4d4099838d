"""Lab hosts: what they have. Leases, boots and crashes of them do not exist yet."""
