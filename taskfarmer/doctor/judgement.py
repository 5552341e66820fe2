"""What findings mean: a function of values. Safety rests on names, speed on locks (docs/architecture.md).

A check that fails for names makes a directory unsafe, and so does a node that was to take part and was not
met: nothing is known of it. Locks that do not hold only cost time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from taskfarmer.doctor.findings import MOST_PARTNERS, Exclusion, Findings, OneNode, Peer, Times
from taskfarmer.peers.lockproof import Verdict
from taskfarmer.storage.mountchecks import COLLIDE, Check, judge_places


class Health(IntEnum):
    """The verdict, and the exit status that says it."""

    SAFE = 0
    SLOW = 1
    UNSAFE = 2


@dataclass(frozen=True)
class Judgement:
    health: Health
    conclusion: str
    checks: tuple[Check, ...]


_EXCHANGE = 20.0
"""A farmer exchanges with the others every second, or every 20 commits' time where that is longer (policy.py)."""
_CLOCK_NOTE = 1.0
"""Seconds of difference between clocks from which on it is worth a word."""


def judge(findings: Findings) -> Judgement:
    """Every check in the order in which it is read, and the verdict that follows from all."""
    places = judge_places(findings.directory, findings.lock_directory, bool(findings.peers))
    checks = (*places, *_alone(findings.here), *_nodes(findings))
    states = {check.state for check in checks}
    health = Health.UNSAFE if "unsafe" in states else Health.SLOW if "slow" in states else Health.SAFE
    return Judgement(health, _conclusion(health, findings, checks), checks)


def _conclusion(health: Health, findings: Findings, checks: Iterable[Check]) -> str:
    path = findings.directory.path
    if health is Health.UNSAFE:
        reasons = "; ".join(check.name for check in checks if check.state == "unsafe")
        return f"not to be shared: {path}: see {reasons}"
    if health is Health.SLOW:
        reasons = "; ".join(check.name for check in checks if check.state == "slow")
        return f"safe but slow: nothing is lost in {path}, but farmers get into each other's way: see {reasons}"
    if findings.expected > 1:
        return f"safe and fast: farmers of these nodes can share {path}"
    return f"safe and fast on this node: {path}; of other nodes nothing is proven"


# --- one node -----------------------------------------------------------------------------------------


def _alone(here: OneNode) -> Iterable[Check]:
    yield _links(here)
    yield _renames(here)
    directory = "" if here.directory_sync else "; a directory cannot be synced"
    yield Check(
        "fsync",
        "known",
        f"{_milliseconds(here.sync)}{directory}",
        "is accepted; whether the disk keeps what it took after a power cut cannot be seen from here",
    )
    yield _exclusion("flock here", here.exclusion)
    if here.lock_exclusion is not None and here.lock_exclusion != here.exclusion:
        yield _exclusion("flock in the lock directory", here.lock_exclusion)
    if here.lock_trouble is not None:
        yield Check("lock directory here", "slow", here.lock_trouble, f"no lock can be taken in it: {COLLIDE}")
    pace = max(1.0, _EXCHANGE * here.commit.median)
    yield Check(
        "time of a commit", "known", _milliseconds(here.commit), f"a farmer commits every {pace:.3g} s or less often"
    )
    if here.lock_cycle is not None:
        yield Check(
            "time of a lock", "known", _milliseconds(here.lock_cycle), "to take it and let it go, nobody else there"
        )


def _links(here: OneNode) -> Check:
    name, links = "link excludes", here.links
    if links.unsupported is not None:
        means = "there are no hard links, on which every commit rests: put the work directory on another file system"
        return Check(name, "unsafe", links.unsupported, means)
    found = f"{links.processes} processes raced for {links.names} names"
    if links.forked:
        means = "two farmers could commit the same revision: put the work directory on another file system"
        return Check(name, "unsafe", f"{found}: {links.forked} went to two, or changed hands", means)
    if links.unheard:
        found += f"; the winner of {links.unheard} was told that it had lost, which is seen through"
    return Check(name, "proven", found, "each name went to exactly one: nothing is lost or recorded twice")


def _renames(here: OneNode) -> Check:
    name, seen = "rename is atomic", here.renames
    found = f"replaced {seen.replaced} times, read {seen.reads} times"
    if seen.unseen:
        found += f", found at the second look only {seen.unseen} times"
    if seen.missing or seen.torn:
        means = "readers see files that are missing or torn: put the work directory on another file system"
        return Check(name, "unsafe", f"{found}: {seen.missing} times missing, {seen.torn} times torn", means)
    means = "readers see the old file or the new one, never half of one"
    if seen.unseen:
        means += "; some have to look again, as for a stale handle, which costs nothing"
    return Check(name, "proven", found, means)


def _exclusion(name: str, found: Exclusion) -> Check:
    if found == "excludes":
        return Check(
            name, "proven", "kept a second process out, and let it in afterwards", "farmers of this node take turns"
        )
    text = "two processes had it at once" if found == "fails" else "this file system has no locks"
    return Check(name, "slow", text, COLLIDE)


def _milliseconds(times: Times) -> str:
    return f"{1000 * times.median:.3g} ms (longest of {times.count}: {1000 * times.longest:.3g} ms)"


# --- several nodes ------------------------------------------------------------------------------------


def _nodes(findings: Findings) -> Iterable[Check]:
    if findings.expected <= 1 and not findings.peers:
        yield Check(
            "other nodes",
            "not proven",
            "only this node took part",
            "to prove locks and names between nodes: srun -N2 --kill-on-bad-exit=0 --wait=0 taskfarmer doctor DIR, or "
            "with --nodes 2 on each of two",
        )
        return
    yield _met(findings)
    if not findings.peers:
        return
    yield _raced(findings.peers)
    yield _locked("locks between nodes", [(peer.host, peer.alive_lock) for peer in findings.peers])
    if findings.separate_locks:
        yield _farm_locks(findings.peers)
    yield _seen(findings.peers)
    yield _clocks(findings)


def _met(findings: Findings) -> Check:
    wanted = min(findings.expected - 1, MOST_PARTNERS)
    hosts = sorted({peer.host for peer in findings.peers})
    found = f"{len(hosts)} of {findings.expected - 1} within {findings.waited:g} s"
    if hosts:
        found += f": {', '.join(hosts)}"
    if len(hosts) < wanted:
        means = (
            "the others did not come in time (--wait), or this directory is not the same on all nodes: then each "
            "would run the whole list"
        )
        return Check("other nodes", "unsafe", found, means)
    if all(peer.same_machine for peer in findings.peers):
        means = "on this very machine (the boot id is the same): what follows holds for it, not for other machines"
        return Check("other nodes", "known", found, means)
    return Check("other nodes", "known", found, "they see the same directory")


def _raced(peers: Iterable[Peer]) -> Check:
    name = "link between nodes"
    forked = [peer.host for peer in peers if peer.links == "forked"]
    if forked:
        means = "farmers of two nodes could commit the same revision: put the work directory on another file system"
        return Check(name, "unsafe", f"two nodes saw two winners: {', '.join(forked)}", means)
    unknown = [peer.host for peer in peers if peer.links == "unknown"]
    if unknown:
        means = "whether commits of two nodes exclude each other is not proven; run it again, with a longer --wait"
        return Check(name, "unsafe", f"fell silent, or was too slow: {', '.join(unknown)}", means)
    return Check(name, "proven", "both nodes saw the same winner of every name", "nothing is lost or recorded twice")


def _locked(name: str, verdicts: list[tuple[str, Verdict]]) -> Check:
    local = [host for host, verdict in verdicts if verdict == "local"]
    if local:
        return Check(name, "slow", f"not shared: both had the lock at once: {', '.join(local)}", COLLIDE)
    if any(verdict == "unsupported" for _, verdict in verdicts):
        return Check(name, "slow", "this file system has no locks", COLLIDE)
    unknown = [host for host, verdict in verdicts if verdict == "unknown"]
    if unknown:
        means = "run it again, with a longer --wait"
        return Check(name, "slow", f"not proven: {', '.join(unknown)}", means)
    return Check(name, "proven", "shared: refused while the other node held it", "farmers of these nodes take turns")


def _farm_locks(peers: tuple[Peer, ...]) -> Check:
    name = "lock directory between nodes"
    unseen = [peer.host for peer in peers if not peer.farm_lock_seen]
    if unseen:
        means = (
            f"it is not the same directory on all nodes; make the farm with --lock-dir on a shared one. Else {COLLIDE}"
        )
        return Check(name, "slow", f"a lock file is not seen here: {', '.join(unseen)}", means)
    return _locked(name, [(peer.host, peer.farm_lock or "unknown") for peer in peers])


def _seen(peers: Iterable[Peer]) -> Check:
    name = "files between nodes"
    contents = [peer.contents.median for peer in peers if peer.contents is not None]
    names = [peer.names for peer in peers if peer.names is not None]
    if not contents or not names:
        means = "what one node writes was not answered by another; run it again, with a longer --wait"
        return Check(name, "not proven", "no answer in time", means)
    found = f"a write was answered after {max(contents):.2g} s, a new file after {max(names):.2g} s, there and back"
    return Check(name, "proven", found, "what one node writes is read on the other, at the latest after this time")


def _clocks(findings: Findings) -> Check:
    off = [(abs(peer.clock), peer) for peer in findings.peers if peer.clock is not None]
    if not off:
        return Check("clocks", "not proven", "no answer in time", _CLOCKS)
    _, peer = max(off, key=lambda one: one[0])
    ahead = "ahead" if (peer.clock or 0) > 0 else "behind"
    found = f"{peer.host} is {abs(peer.clock or 0):.2g} s {ahead}, give or take {peer.clock_error or 0:.2g} s"
    if abs(peer.clock or 0) <= (peer.clock_error or 0):
        found = f"no difference to be seen; it is below {2 * (peer.clock_error or 0):.2g} s"
    if abs(findings.here.server_clock) > _CLOCK_NOTE:
        found += f"; files are stamped {findings.here.server_clock:+.2g} s from the clock here"
    return Check("clocks", "known", found, _CLOCKS)


_CLOCKS = "nothing is decided by comparing clocks; times in timelines and logs are off by this much"
