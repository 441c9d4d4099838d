"""A virtual machine and what its console says."""
