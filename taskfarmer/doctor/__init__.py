"""The examination of a file system before it is trusted: probes return data, and a pure function judges them.

Nothing is imported here, since every farmer does a small part of it at its start.
"""
