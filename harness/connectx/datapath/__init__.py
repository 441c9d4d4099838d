"""WQEs: parsed, executed, completed."""
