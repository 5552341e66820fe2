"""Worker processes: each runs tasks in up to eight slots, one task at a time in each slot."""
