"""What happened, for people and for machines: the store of records and its reports."""
