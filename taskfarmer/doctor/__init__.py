"""Tests whether farmers can share a file system: probes return data, and a pure function judges the data.

Nothing is imported here, because every farmer runs a few of the probes when it starts.
"""
