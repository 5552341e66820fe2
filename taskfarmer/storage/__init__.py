"""Files and locks on the shared file system: paths, fsync and link, waits, and known properties of mounts."""
