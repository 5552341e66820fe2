"""Farmers as others see them: who they are, their heartbeats, and the evidence that one of them is dead."""
