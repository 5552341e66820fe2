"""The verdict on findings: a pure function. Safety depends on names, speed on locks (docs/architecture.md).

A directory is unsafe if a check of names fails, or if an expected node was not met: then nothing is known about that
node. Broken locks only cost time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from taskfarmer.doctor.findings import MOST_PARTNERS, Exclusion, Findings, OneNode, Peer, Times
from taskfarmer.peers.lockproof import Verdict
from taskfarmer.storage.mountchecks import COLLIDE, Check, judge_places


class Health(IntEnum):
    """The verdict; its value is the exit status."""

    SAFE = 0
    SLOW = 1
    UNSAFE = 2


@dataclass(frozen=True)
class Judgement:
    health: Health
    conclusion: str
    checks: tuple[Check, ...]


_EXCHANGE = 20.0
"""A farmer commits once per second, or once per 20 times the duration of a commit if that is longer (pacing.py)."""
_CLOCK_NOTE = 1.0
"""Clock differences of more seconds are reported."""


def judge(findings: Findings) -> Judgement:
    """All checks, in the order of the report, and the verdict."""
    places = judge_places(findings.directory, findings.lock_directory, bool(findings.peers))
    checks = (*places, *_alone(findings.here), *_nodes(findings))
    states = {check.state for check in checks}
    health = Health.UNSAFE if "unsafe" in states else Health.SLOW if "slow" in states else Health.SAFE
    return Judgement(health, _conclusion(health, findings, checks), checks)


def _conclusion(health: Health, findings: Findings, checks: Iterable[Check]) -> str:
    path = findings.directory.path
    if health is Health.UNSAFE:
        reasons = "; ".join(check.name for check in checks if check.state == "unsafe")
        return f"unsafe: farmers of several nodes must not share {path}: see {reasons}"
    if health is Health.SLOW:
        reasons = "; ".join(check.name for check in checks if check.state == "slow")
        return f"safe but slow: no data loss in {path}, but farmers will contend: see {reasons}"
    if findings.expected > 1:
        return f"safe and fast: farmers on these nodes can share {path}"
    return f"safe and fast on this node: {path}; other nodes were not tested"


# --- one node -----------------------------------------------------------------------------------------


def _alone(here: OneNode) -> Iterable[Check]:
    yield _links(here)
    yield _renames(here)
    directory = "" if here.directory_sync else "; directories cannot be synced"
    yield Check(
        "fsync",
        "known",
        f"{_milliseconds(here.sync)}{directory}",
        "works; whether data survives a power failure cannot be tested from here",
    )
    yield _exclusion("flock here", here.exclusion)
    if here.lock_exclusion is not None and here.lock_exclusion != here.exclusion:
        yield _exclusion("flock in the lock directory", here.lock_exclusion)
    if here.lock_trouble is not None:
        yield Check("lock directory here", "slow", here.lock_trouble, f"cannot take a lock in it: {COLLIDE}")
    pace = max(1.0, _EXCHANGE * here.commit.median)
    yield Check("time of a commit", "known", _milliseconds(here.commit), f"a farmer commits at most every {pace:.3g} s")
    if here.lock_cycle is not None:
        yield Check("time of a lock", "known", _milliseconds(here.lock_cycle), "lock and unlock, without contention")


def _links(here: OneNode) -> Check:
    name, links = "link excludes", here.links
    if links.unsupported is not None:
        means = "no hard links, which every commit needs: put the work directory on another file system"
        return Check(name, "unsafe", links.unsupported, means)
    found = f"{links.processes} processes raced for {links.names} names"
    if links.forked:
        means = "two farmers could commit the same revision: put the work directory on another file system"
        return Check(name, "unsafe", f"{found}: {links.forked} had two winners, or the winner changed", means)
    if links.unheard:
        found += f"; reply lost for {links.unheard}; winner verified by reading (harmless)"
    return Check(name, "proven", found, "each name had exactly one winner: nothing is lost or recorded twice")


def _renames(here: OneNode) -> Check:
    name, seen = "rename is atomic", here.renames
    found = f"replaced {seen.replaced} times, read {seen.reads} times"
    if seen.unseen:
        found += f", visible only after a retry {seen.unseen} times"
    if seen.missing or seen.torn:
        means = "readers find files missing or torn: put the work directory on another file system"
        return Check(name, "unsafe", f"{found}: {seen.missing} times missing, {seen.torn} times torn", means)
    means = "readers see the old file or the new one, never a mixture"
    if seen.unseen:
        means += "; some reads were retried, as for a stale handle (harmless)"
    return Check(name, "proven", found, means)


def _exclusion(name: str, found: Exclusion) -> Check:
    if found == "excludes":
        return Check(
            name, "proven", "excluded a second process until it was released", "farmers on this node take turns"
        )
    text = "two processes held it at the same time" if found == "fails" else "this file system does not support locks"
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
            "to test locks and names between nodes, run: srun -N2 --kill-on-bad-exit=0 --wait=0 taskfarmer doctor DIR; "
            "or run it with --nodes 2 on each of two nodes",
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
            "the others did not arrive in time (--wait), or this directory is not the same on all nodes: then each "
            "node would run the whole list"
        )
        return Check("other nodes", "unsafe", found, means)
    if all(peer.same_machine for peer in findings.peers):
        means = "on this very machine (same boot ID): the following results are not valid for other machines"
        return Check("other nodes", "known", found, means)
    return Check("other nodes", "known", found, "they see the same directory")


def _raced(peers: Iterable[Peer]) -> Check:
    name = "link between nodes"
    forked = [peer.host for peer in peers if peer.links == "forked"]
    if forked:
        means = "farmers on two nodes could commit the same revision: put the work directory on another file system"
        return Check(name, "unsafe", f"two nodes saw different winners: {', '.join(forked)}", means)
    unknown = [peer.host for peer in peers if peer.links == "unknown"]
    if unknown:
        means = "it is unknown whether commits of two nodes exclude each other; run it again with a longer --wait"
        return Check(name, "unsafe", f"stopped responding, or was too slow: {', '.join(unknown)}", means)
    return Check(name, "proven", "both nodes saw the same winner of every name", "nothing is lost or recorded twice")


def _locked(name: str, verdicts: list[tuple[str, Verdict]]) -> Check:
    local = [host for host, verdict in verdicts if verdict == "local"]
    if local:
        return Check(name, "slow", f"not shared: both nodes held it at the same time: {', '.join(local)}", COLLIDE)
    if any(verdict == "unsupported" for _, verdict in verdicts):
        return Check(name, "slow", "this file system does not support locks", COLLIDE)
    unknown = [host for host, verdict in verdicts if verdict == "unknown"]
    if unknown:
        means = "run it again with a longer --wait"
        return Check(name, "slow", f"not proven: {', '.join(unknown)}", means)
    return Check(name, "proven", "shared: refused while the other node held it", "farmers on these nodes take turns")


def _farm_locks(peers: tuple[Peer, ...]) -> Check:
    name = "lock directory between nodes"
    unseen = [peer.host for peer in peers if not peer.farm_lock_seen]
    if unseen:
        remedy = "create the farm with --lock-dir on a shared one"
        means = f"it is not the same directory on all nodes; {remedy}. Otherwise {COLLIDE}"
        return Check(name, "slow", f"a lock file is not visible here: {', '.join(unseen)}", means)
    return _locked(name, [(peer.host, peer.farm_lock or "unknown") for peer in peers])


def _seen(peers: Iterable[Peer]) -> Check:
    name = "files between nodes"
    contents = [peer.contents.median for peer in peers if peer.contents is not None]
    names = [peer.names for peer in peers if peer.names is not None]
    if not contents or not names:
        means = "another node did not respond to writes; run it again with a longer --wait"
        return Check(name, "not proven", "no answer in time", means)
    found = f"round trip: {max(contents):.2g} s for a write, {max(names):.2g} s for a new file"
    return Check(name, "proven", found, "a write on one node is visible on the other at the latest after this time")


def _clocks(findings: Findings) -> Check:
    off = [(abs(peer.clock), peer) for peer in findings.peers if peer.clock is not None]
    if not off:
        return Check("clocks", "not proven", "no answer in time", _CLOCKS)
    _, peer = max(off, key=lambda one: one[0])
    ahead = "ahead" if (peer.clock or 0) > 0 else "behind"
    found = f"{peer.host} is {abs(peer.clock or 0):.2g} s {ahead}, +/- {peer.clock_error or 0:.2g} s"
    if abs(peer.clock or 0) <= (peer.clock_error or 0):
        found = f"no difference found; it is less than {2 * (peer.clock_error or 0):.2g} s"
    if abs(findings.here.server_clock) > _CLOCK_NOTE:
        found += f"; file timestamps differ by {findings.here.server_clock:+.2g} s from the clock here"
    return Check("clocks", "known", found, _CLOCKS)


_CLOCKS = "no decision depends on clocks; times in timelines and logs are off by this much"
