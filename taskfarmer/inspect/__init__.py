"""Reads a farm: its status, the output of its tasks, and a check of all its files. Nothing here writes."""
