"""The memory of a case: mappings, page-loss methods, the page-state model."""
