"""Known properties of file systems, by name and options, before anything is proven. Sources: docs/filesystems.md.

They are shown to the user and cause warnings. A proof takes precedence.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from taskfarmer.storage.mounts import Mount

Locks = Literal["shared", "local", "none", "unknown"]
"""Whether `flock` excludes between nodes; `none` if the call is refused."""


class FsFacts(NamedTuple):
    """`shared` is whether other nodes see the same files; None if that is unknown."""

    shared: bool | None
    locks: Locks
    text: str


_ONE_NODE = "a file system of this node alone"
_LOCAL = {
    "bcachefs": _ONE_NODE,
    "btrfs": _ONE_NODE,
    "ext2": _ONE_NODE,
    "ext3": _ONE_NODE,
    "ext4": _ONE_NODE,
    "f2fs": _ONE_NODE,
    "ramfs": "memory of this node alone: a reboot empties it",
    "tmpfs": "memory of this node alone: a reboot empties it",
    "overlay": "a container's file system: on this node alone, and removed with the container",
    "xfs": _ONE_NODE,
    "zfs": _ONE_NODE,
}
_PROVE = "whether locks are shared between nodes depends on how it is set up: prove it"
_NETWORK: dict[str, tuple[Locks, str]] = {
    "9p": ("unknown", f"a file system of the host of this machine; {_PROVE}"),
    "afs": ("unknown", f"AFS; {_PROVE}"),
    "beegfs": ("unknown", "BeeGFS: locks are local to a node unless its client has tuneUseGlobalFileLocks: prove it"),
    "ceph": ("shared", "CephFS: locks are kept by its metadata servers, for all nodes"),
    "cifs": ("unknown", f"SMB; {_PROVE}"),
    "gfs2": ("unknown", f"GFS2; {_PROVE}"),
    "gpfs": ("unknown", f"GPFS (Storage Scale); {_PROVE}"),
    "ocfs2": ("unknown", f"OCFS2; {_PROVE}"),
    "pvfs2": ("none", "PVFS2 (OrangeFS): locks are not supported"),
    "smb3": ("unknown", f"SMB; {_PROVE}"),
    "virtiofs": ("unknown", f"a file system of the host of this machine; {_PROVE}"),
    "wekafs": ("unknown", f"WEKA; {_PROVE}"),
}


def fs_facts(mount: Mount | None) -> FsFacts:
    """The known properties of a mount, by its name and options."""
    if mount is None:
        return FsFacts(None, "unknown", "unknown file system: the kernel does not list its mount")
    if mount.type in _LOCAL:
        return FsFacts(False, "unknown", _LOCAL[mount.type])
    if mount.type == "lustre":
        return _lustre(mount)
    if mount.type in ("nfs", "nfs4"):
        return _nfs(mount)
    if mount.type in _NETWORK:
        locks, text = _NETWORK[mount.type]
        return FsFacts(True, locks, text)
    if mount.type == "fuse.glusterfs":
        return FsFacts(True, "shared", "GlusterFS: locks are kept by its servers, for all nodes")
    if mount.type == "fuse.sshfs":
        return FsFacts(True, "local", "sshfs: SFTP has no file locks, so they are local to each node")
    if mount.type.split(".")[0] in ("fuse", "fuseblk"):
        return FsFacts(None, "unknown", f"a FUSE file system; {_PROVE}")
    return FsFacts(None, "unknown", f"unknown file system type {mount.type}: prove it")


def _lustre(mount: Mount) -> FsFacts:
    if mount.option("localflock") is not None:
        return FsFacts(True, "local", "Lustre, mounted with localflock: locks are local to each node")
    if mount.option("flock") is not None:
        return FsFacts(True, "shared", "Lustre, mounted with flock: locks hold for all nodes")
    if mount.option("noflock") is not None:
        return FsFacts(True, "none", "Lustre, mounted with noflock: locks are not supported")
    return FsFacts(True, "unknown", "Lustre; the mount options do not show how locks work: prove it")


def _nfs(mount: Mount) -> FsFacts:
    local = mount.option("local_lock") in ("all", "flock")
    if local or mount.option("nolock") is not None:
        return FsFacts(True, "local", "NFS, mounted with nolock or local_lock: locks are local to each node")
    return FsFacts(True, "shared", "NFS: locks are kept by the server, for all nodes that mount it so")
