"""The examination of a file system before it is trusted: probes return data, and a pure function judges them."""

from taskfarmer.doctor.examination import examine, lock_directory
from taskfarmer.doctor.findings import Findings, Peer
from taskfarmer.doctor.judgement import Check, Health, Judgement, judge
from taskfarmer.doctor.lockproof import LockProof, Sign, Verdict
from taskfarmer.doctor.neighbours import glance, prove_lock

__all__ = [
    "Check",
    "Findings",
    "Health",
    "Judgement",
    "LockProof",
    "Peer",
    "Sign",
    "Verdict",
    "examine",
    "glance",
    "judge",
    "lock_directory",
    "prove_lock",
]
