"""Plan files and the pytest plugin."""
