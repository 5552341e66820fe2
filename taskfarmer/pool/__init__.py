"""The worker processes: fed in batches through sockets, each with up to eight slots that run one task at a time."""
