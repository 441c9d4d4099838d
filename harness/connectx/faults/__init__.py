"""Page faults: events, resumes, counters."""
