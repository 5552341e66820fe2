"""Other farmers: their identities and heartbeats, and the evidence that one of them is dead."""
