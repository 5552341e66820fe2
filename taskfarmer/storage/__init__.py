"""Files and locks on the shared file system: every path, every fsync and link, and what mounts are known for."""
