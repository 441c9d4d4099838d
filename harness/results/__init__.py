"""Store the records of a run and write its reports."""
