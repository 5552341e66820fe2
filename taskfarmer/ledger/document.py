"""A state as the JSON document that a revision holds, and back; `docs/workdir-format.md` names each member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskfarmer.ledger.state import Entry, Segment, State
from taskfarmer.plain import names_of

FORMAT = 1
_SCALARS = (
    "farm",
    "revision",
    "epoch",
    "epoch_from",
    "returned",
    "closed_bytes",
    "finished",
    "failed",
    "seconds",
    "ended",
)
_RARE = ("timed", "time")
_OTHERS = frozenset(("format", "by", "segments", "farmers", "departed", "times", "longest"))


def to_document(state: State) -> dict[str, Any]:
    document: dict[str, Any] = {"format": FORMAT, **{name: getattr(state, name) for name in _SCALARS}}
    document["by"] = list(state.by)
    document["segments"] = [_segment_document(segment) for segment in state.segments]
    document["farmers"] = {name: _entry_document(name, entry) for name, entry in state.farmers.items()}
    document["departed"] = dict(state.departed)
    if state.times:
        document["times"] = _row(state.times)
    if state.longest:
        document["longest"] = state.longest
    return {**state.extra, **document}


def _row(times: Mapping[int, int]) -> list[int]:
    """The lowest class and the counts from it on."""
    first = min(times)
    return [first, *(times.get(number, 0) for number in range(first, max(times) + 1))]


def _times(row: list[int]) -> dict[int, int]:
    return {number: count for number, count in enumerate(row[1:], start=row[0] if row else 0) if count}


def _segment_document(segment: Segment) -> dict[str, Any]:
    members = {name: value for name, value in vars(segment).items() if value or name not in _RARE}
    return {**members.pop("extra"), **members}


def _segment(document: Mapping[str, Any]) -> Segment:
    extra = {name: value for name, value in document.items() if name not in _SEGMENT}
    return Segment(**{name: value for name, value in document.items() if name in _SEGMENT}, extra=extra)


_SEGMENT = frozenset(names_of(Segment)) - {"extra"}


def _entry_document(farmer: str, entry: Entry) -> list[Any]:
    """There is an entry for each of perhaps a thousand farmers, so it is short: what is as ever is left out."""
    document: list[Any] = [entry.seq, entry.claims, entry.bytes, entry.slots]
    if entry.journal != farmer or entry.extra:
        document.append(entry.journal)
    return [*document, *entry.extra]


def _entry(farmer: str, document: list[Any]) -> Entry:
    seq, claims, size, slots, *more = document
    return Entry(seq, claims, more[0] if more else farmer, size, slots, tuple(more[1:]))


def from_document(document: Mapping[str, Any]) -> State:
    """The state in a revision; members that this version does not know are kept for the next one."""
    return State(
        **{name: document[name] for name in _SCALARS},
        by=(document["by"][0], document["by"][1]),
        segments=tuple(_segment(segment) for segment in document["segments"]),
        farmers={name: _entry(name, entry) for name, entry in document["farmers"].items()},
        departed=document["departed"],
        times=_times(document.get("times", [])),
        longest=document.get("longest", 0),
        extra={name: value for name, value in document.items() if name not in _OTHERS and name not in _SCALARS},
    )
