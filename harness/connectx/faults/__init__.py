"""Page faults: their events, resumes and conservation checks."""
