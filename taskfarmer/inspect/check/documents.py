"""What each member of a document must be (docs/workdir-format.md), and what is wrong with one.

A checksum says that a document is what was written. These tables say whether that could be right: the type and the
range of each member, and of what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from taskfarmer.formats import limits, members
from taskfarmer.storage.layout import epoch_number

Rule = Callable[[Any], bool]

_FARM_ID = re.compile(r"[0-9a-f]{16}")
_SEGMENT = re.compile(r"[0-9a-f]{12}")
_FARMER = re.compile(r"[^/\0]+-[0-9]+-[0-9a-f]{8}")
_JOURNAL = re.compile(r"[^/\0]+-[0-9]+-[0-9a-f]{8}(-r[0-9]+)?")
_SHA256 = re.compile(r"([0-9a-f]{64})?")
_CRC = re.compile(r"[0-9a-f]{8}")
_CLASSES = 256


def _matching(pattern: re.Pattern[str]) -> Rule:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _at_least(least: int) -> Rule:
    return lambda value: members.is_whole(value, least)


def _or_null(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def _is(kind: type) -> Rule:
    return lambda value: type(value) is kind


def _is_by(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and members.is_name(value[0]) and members.is_whole(value[1])


def _are_times(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= _CLASSES and all(map(members.is_whole, value))


def _is_intervals(value: Any) -> bool:
    return isinstance(value, str) and value.isascii()


FARM: Mapping[str, Rule] = {
    "farm": _matching(_FARM_ID),
    "list_path": members.is_text,
    "handler": members.is_text,
    "handler_options": members.is_texts,
    "lock": _or_null(members.is_text),
    "lease": lambda value: members.is_number(value, 0.001),
    "epoch_length": _at_least(1),
    "made": members.is_number,
    "logs": _or_null(members.is_text),
    "shared_group": lambda value: value is True,
}
REVISION: Mapping[str, Rule] = {
    "farm": _matching(_FARM_ID),
    "revision": members.is_whole,
    "by": _is_by,
    "epoch": lambda value: members.is_name(value) and epoch_number(value) is not None,
    "epoch_from": members.is_whole,
    "segments": _is(list),
    "returned": _is_intervals,
    "farmers": _is(dict),
    "departed": _is(dict),
    "closed_bytes": members.is_whole,
    "finished": members.is_whole,
    "failed": members.is_whole,
    "seconds": members.is_number,
    "ended": members.is_whole,
    "times": _are_times,
    "longest": members.is_whole,
}
SEGMENT: Mapping[str, Rule] = {
    "file": _matching(_SEGMENT),
    "first": members.is_whole,
    "tasks": lambda value: members.is_whole(value, most=limits.TASKS),
    "next": members.is_whole,
    "source_bytes": members.is_whole,
    "source_sha256": _matching(_SHA256),
    "open_end": _is(bool),
    "timed": _is(bool),
    "time": members.is_number,
    "source_crc": _matching(_CRC),
}
VIEWS: Mapping[str, Rule] = {
    "format": lambda value: members.is_whole(value, 1, 1),
    "results": members.is_whole,
    "revision": members.is_whole,
    "sizes": lambda value: isinstance(value, dict) and all(map(members.is_whole, value.values())),
}
_MAY_BE_LEFT_OUT = frozenset(("logs", "shared_group", "times", "longest", "timed", "time", "source_crc"))


def wrong_members(document: Any, rules: Mapping[str, Rule], place: str = "") -> Iterator[str]:
    """What is wrong with a document, or a part of it, by its rules; `place` is where it stands."""
    if not isinstance(document, dict):
        yield str(members.wrong(place or "document", document))
        return
    for name, rule in rules.items():
        where = f"{place}.{name}" if place else name
        if name not in document:
            if name not in _MAY_BE_LEFT_OUT:
                yield f"member `{where}` is missing"
        elif not rule(document[name]):
            yield str(members.wrong(where, document[name]))


def wrong_in_revision(document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the members of a revision, those of its segments and entries too."""
    yield from wrong_members(document, REVISION)
    segments, farmers, departed = (document.get(name) for name in ("segments", "farmers", "departed"))
    if isinstance(segments, list):
        for number, one in enumerate(segments):
            yield from wrong_members(one, SEGMENT, f"segments[{number}]")
    for farmer, entry in farmers.items() if isinstance(farmers, dict) else ():
        yield from _wrong_entry(farmer, entry)
    for journal, size in departed.items() if isinstance(departed, dict) else ():
        if not _JOURNAL.fullmatch(journal):
            yield f"{members.shown(journal)} in `departed` is not a journal's name"
        if not members.is_whole(size):
            yield str(members.wrong(f"departed[{members.shown(journal)}]", size))


def _wrong_entry(farmer: str, entry: Any) -> Iterator[str]:
    where = f"farmers[{members.shown(farmer)}]"
    if not _FARMER.fullmatch(farmer) or not members.is_name(farmer):
        yield f"{members.shown(farmer)} in `farmers` is not a farmer's name"
    if not isinstance(entry, list) or len(entry) < 4:
        yield str(members.wrong(where, entry))
        return
    rules = (members.is_whole, _is_intervals, members.is_whole, members.is_whole, _matching(_JOURNAL))
    for name, rule, value in zip(("seq", "claims", "bytes", "slots", "journal"), rules, entry, strict=False):
        if not rule(value):
            yield str(members.wrong(f"{where}.{name}", value))
