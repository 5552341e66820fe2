"""Conversion of a state to the JSON document in a revision, and back; docs/workdir-format.md describes each member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from taskfarmer.errors import Damaged, NotAFarm
from taskfarmer.formats import limits, members
from taskfarmer.ledger.state import Entry, Segment, State, problems
from taskfarmer.storage.layout import epoch_number

FORMAT = 1
RESTORE = "restore it from a snapshot of the file system, or start a new farm in another work directory (-w)"
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
_RARE = ("timed", "time", "source_crc")
_CLASSES = 256
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
    """The lowest class, followed by the counts of it and all higher classes."""
    first = min(times)
    return [first, *(times.get(number, 0) for number in range(first, max(times) + 1))]


def _times(row: Any) -> dict[int, int]:
    if not isinstance(row, list) or len(row) > _CLASSES or not all(map(members.is_whole, row)) or row[:1] > [_CLASSES]:
        raise members.wrong("times", row)
    return {number: count for number, count in enumerate(row[1:], start=row[0] if row else 0) if count}


def _segment_document(segment: Segment) -> dict[str, Any]:
    members = {name: value for name, value in vars(segment).items() if value or name not in _RARE}
    return {**members.pop("extra"), **members}


def _segment(document: Any, first: int) -> Segment:
    """A segment whose tasks start with ID `first`; ValueError if a member is invalid."""
    if not isinstance(document, dict):
        raise members.wrong("segments", document)
    if document.get("first") != first:
        raise members.wrong("first", document.get("first"))
    members.name(document, "file")
    tasks = members.whole(document, "tasks", most=limits.TASKS)
    members.whole(document, "next", most=tasks)
    given = {name: value for name, value in document.items() if name in _SEGMENT}
    for name in _OPTIONAL & given.keys():
        if not _fits(name, given[name]):
            raise members.wrong(name, given[name])
    return Segment(**given, extra={name: value for name, value in document.items() if name not in _SEGMENT})


def _fits(name: str, value: object) -> bool:
    """Whether an optional member of a segment has its type."""
    if name in ("open_end", "timed"):
        return isinstance(value, bool)
    if name in ("source_sha256", "source_crc"):
        return members.is_text(value, 64)
    return members.is_number(value) if name == "time" else members.is_whole(value)


_SEGMENT = frozenset(field.name for field in fields(Segment)) - {"extra"}
_OPTIONAL = _SEGMENT - {"file", "first", "tasks", "next"}


def _entry_document(farmer: str, entry: Entry) -> list[Any]:
    """An entry as an array. It is short, with default values left out, since a revision may have a thousand."""
    document: list[Any] = [entry.seq, entry.claims, entry.bytes, entry.slots]
    if entry.journal != farmer or entry.extra:
        document.append(entry.journal)
    return [*document, *entry.extra]


def _entry(farmer: str, document: Any) -> Entry:
    if not isinstance(document, list) or len(document) < 4:
        raise members.wrong(f"farmers[{farmer!r}]", document)
    seq, claims, size, slots, *more = document
    journal = more[0] if more else farmer
    for name, value in (("seq", seq), ("bytes", size), ("slots", slots)):
        if type(value) is not int or not 0 <= value <= members.MOST:
            raise members.wrong(f"farmers[{farmer!r}].{name}", value)
    if not isinstance(claims, str):
        raise members.wrong(f"farmers[{farmer!r}].claims", claims)
    if more and not members.is_name(journal):
        raise members.wrong(f"farmers[{farmer!r}].journal", journal)
    return Entry(seq, claims, journal, size, slots, tuple(more[1:]))


def decode(path: str, document: Mapping[str, Any]) -> State:
    """The state in the revision at `path`, which errors name."""
    if document.get("format") != FORMAT:
        found = members.shown(document.get("format"))
        raise NotAFarm(f"{path}: format {found}, but this version supports format {FORMAT}; use a newer taskfarmer")
    try:
        return from_document(document)
    except ValueError as error:
        raise Damaged(f"{path}: {error}; {RESTORE}") from error


def refuse_contradictions(path: str, state: State) -> None:
    """Damaged if a task is in two places or in none: a stranger may have written the revision."""
    try:
        wrong = problems(state)
    except ValueError as error:
        wrong = [str(error)]
    if wrong:
        raise Damaged(f"{path}: contradicts itself: {wrong[0]:.200}; see taskfarmer check WORKDIR; {RESTORE}")


def from_document(document: Mapping[str, Any]) -> State:
    """The state in a revision. Members that this version does not know are kept for the next revision.

    ValueError names a member that is missing or has a wrong type or value.
    """
    scalars = {name: _scalar(document, name) for name in _SCALARS}
    by = members.array(document, "by")
    if len(by) < 2 or not members.is_name(by[0]) or not members.is_whole(by[1]):
        raise members.wrong("by", by)
    segments: list[Segment] = []
    for number, one in enumerate(members.array(document, "segments")):
        try:
            segments.append(_segment(one, segments[-1].first + segments[-1].tasks if segments else 0))
        except ValueError as error:
            raise ValueError(f"segments[{number}]: {error}") from None
    if segments and segments[-1].first + segments[-1].tasks > limits.TASKS:
        raise members.wrong("segments", segments[-1].first)
    farmers, departed = members.table(document, "farmers"), members.table(document, "departed")
    for names in (farmers, departed):
        for name in names:
            if not members.is_name(name):
                raise members.wrong("farmers", name)
    for name, size in departed.items():
        if not members.is_whole(size):
            raise members.wrong(f"departed[{name!r}]", size)
    return State(
        **scalars,
        by=(by[0], by[1]),
        segments=tuple(segments),
        farmers={name: _entry(name, entry) for name, entry in farmers.items()},
        departed=departed,
        times=_times(document.get("times", [])),
        longest=members.whole(document, "longest") if "longest" in document else 0,
        extra={name: value for name, value in document.items() if name not in _OTHERS and name not in _SCALARS},
    )


def _scalar(document: Mapping[str, Any], name: str) -> Any:
    if name == "seconds":
        members.number(document, name, least=-members.MOST)
        return document[name]
    if name == "returned":
        return members.text(document, name, limits.DOCUMENT)
    if name == "epoch":
        epoch = members.name(document, name)
        if epoch_number(epoch) is None:
            raise members.wrong(name, epoch)
        return epoch
    return members.name(document, name) if name == "farm" else members.whole(document, name)
