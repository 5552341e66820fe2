"""The worker processes: fed in batches through pipes, each running one task at a time."""
