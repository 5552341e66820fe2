"""The nouns of a farm as values, and how each is written on a line.

Three line formats live here, and nowhere else (`docs/workdir-format.md` is their reference):

* a task:      `ID command`, or `ID {"command": ...}` where the command cannot stand on a line as it is
* intervals:   `segment:start+count@attempt!deaths^needs`, the four last left out where they are 1, 1, 0 and 0;
  or several that follow each other, `segment~digits@...`, by their gaps and counts in base 64
* a result:    twelve words and a checksum, one line per attempt, in the order of completion
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from taskfarmer import limits
from taskfarmer.plain import dataclass

FINISHED = b"finished"
FAILED = b"failed"
RETURNED = b"returned"
LOST = b"lost"
OUTCOMES = frozenset((FINISHED, FAILED, RETURNED, LOST))
RECORDED_AS_FAILED = frozenset((FAILED, LOST))

LONGEST_GROUP = 64
"""Intervals in one word at most: whoever takes the first of `returned` parses one word."""

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_JSON_START = b'{"command":'
_LONGEST_INTERVAL = 26  # digits in base 64: two numbers of up to 64 bits


class Interval:
    """`count` tasks that follow each other in segment number `segment`, from place `start` on.

    All of them are at the same `attempt` (from 1), as many farmers or workers (`deaths`) died while they ran, and
    each is known to need at least `needs` seconds (0 where nothing is known). Never changed once it is made.
    """

    __slots__ = ("attempt", "count", "deaths", "needs", "segment", "start")

    def __init__(self, segment: int, start: int, count: int, attempt: int = 1, deaths: int = 0, needs: int = 0) -> None:
        self.segment = segment
        self.start = start
        self.count = count
        self.attempt = attempt
        self.deaths = deaths
        self.needs = needs

    @property
    def _values(self) -> tuple[int, ...]:
        return self.segment, self.start, self.count, self.attempt, self.deaths, self.needs

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, Interval) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return f"Interval{self._values}"

    @property
    def stop(self) -> int:
        return self.start + self.count

    def part(self, first: int, count: int) -> Interval:
        """The `count` tasks from the `first`-th of this interval on."""
        return Interval(self.segment, self.start + first, count, self.attempt, self.deaths, self.needs)

    def again(self, died: bool = False) -> Interval:
        """The same tasks as they are given out the next time."""
        return Interval(self.segment, self.start, self.count, self.attempt + 1, self.deaths + died, self.needs)

    def needing(self, seconds: int) -> Interval:
        """The same tasks, each of which is known to need as many seconds."""
        return Interval(self.segment, self.start, self.count, self.attempt, self.deaths, seconds)

    def __str__(self) -> str:
        return _word([self])


def parse_group(word: str) -> list[Interval]:
    """The intervals that one word stands for, in the order of their places; ValueError where it is none."""
    rest, _, needs = word.partition("^")
    rest, _, deaths = rest.partition("!")
    rest, _, attempt = rest.partition("@")
    segment, scattered, digits = rest.partition("~")
    if not scattered:
        segment, _, digits = rest.partition(":")
    number, kind = int(segment), (int(attempt or 1), int(deaths or 0), int(needs or 0))
    if not scattered:
        start, more, count = digits.partition("+")
        return [Interval(number, int(start), int(count) if more else 1, *kind)]
    if len(digits) > LONGEST_GROUP * _LONGEST_INTERVAL:
        raise ValueError(f"invalid literal for intervals: {len(digits)} digits in a word")
    place = 0
    found = []
    numbers = _numbers(digits)
    for value in numbers:
        more_than_two = next(numbers, None) if value & 1 else -1
        if more_than_two is None:
            raise ValueError(f"invalid literal for intervals: {digits!r} has no end")
        one = Interval(number, place + (value >> 1), more_than_two + 2, *kind)
        found.append(one)
        place = one.stop
    return found


def _numbers(digits: str) -> Iterator[int]:
    """Numbers of base-64 digits: five bits a digit, the lowest first; the sixth says that more follow."""
    value = shift = 0
    for digit in digits:
        bits = _VALUES.get(digit)
        if bits is None:
            raise ValueError(f"invalid literal for a number in base 64: {digit!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits < 32:
            yield value
            value = shift = 0
    if shift:
        raise ValueError(f"invalid literal for a number in base 64: {digits!r} has no end")


def _digits(number: int) -> str:
    text = ""
    while number > 31:
        text += _DIGITS[32 | number & 31]
        number >>= 5
    return text + _DIGITS[number]


def each_interval(text: str) -> Iterator[Interval]:
    return (one for word in text.split() for one in parse_group(word))


def parse_intervals(text: str) -> list[Interval]:
    return list(each_interval(text))


def write_intervals(intervals: Iterable[Interval]) -> str:
    """One string for all `intervals`, neighbours joined; their order stays."""
    words: list[str] = []
    group: list[Interval] = []
    for one in joined(intervals):
        if group and (len(group) == LONGEST_GROUP or not _follows(group[-1], one)):
            words.append(_word(group))
            group = []
        group.append(one)
    if group:
        words.append(_word(group))
    return " ".join(words)


def _follows(before: Interval, one: Interval) -> bool:
    return _kind(before) == _kind(one) and one.start >= before.stop


def _kind(one: Interval) -> tuple[int, int, int, int]:
    return one.segment, one.attempt, one.deaths, one.needs


def _word(group: list[Interval]) -> str:
    first = group[0]
    attempt = f"@{first.attempt}" if first.attempt != 1 else ""
    deaths = f"!{first.deaths}" if first.deaths else ""
    kind = f"{attempt}{deaths}^{first.needs}" if first.needs else f"{attempt}{deaths}"
    if len(group) == 1:
        count = f"+{first.count}" if first.count != 1 else ""
        return f"{first.segment}:{first.start}{count}{kind}"
    place = 0
    text = ""
    for one in group:
        gap = one.start - place << 1
        text += _digits(gap) if one.count == 1 else _digits(gap | 1) + _digits(one.count - 2)
        place = one.stop
    return f"{first.segment}~{text}{kind}"


def joined(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """The same tasks with intervals that touch each other made one."""
    last: Interval | None = None
    for one in intervals:
        if not one.count:
            continue
        if last is not None and last.stop == one.start and _kind(last) == _kind(one):
            last = last.part(0, last.count + one.count)
        else:
            if last is not None:
                yield last
            last = one
    if last is not None:
        yield last


def counted(intervals: Iterable[Interval]) -> int:
    return sum(one.count for one in intervals)


def without(held: Iterable[Interval], taken: Iterable[Interval]) -> list[Interval]:
    """What is left of `held` when the tasks of `taken` at the same attempt are gone; order kept."""
    gone: dict[tuple[int, int], list[Interval]] = {}
    for one in taken:
        gone.setdefault((one.segment, one.attempt), []).append(one)
    for cuts in gone.values():
        cuts.sort(key=lambda cut: cut.start)
    left: list[Interval] = []
    for one in held:
        place = one.start
        for cut in gone.get((one.segment, one.attempt), ()):
            if cut.stop <= place or cut.start >= one.stop:
                continue
            if cut.start > place:
                left.append(one.part(place - one.start, cut.start - place))
            place = cut.stop
        if place < one.stop:
            left.append(one.part(place - one.start, one.stop - place))
    return left


@cache
def _result() -> re.Pattern[bytes]:
    """All words of a result but its checksum. Compiled when the first one is read: a farmer reads none as a rule."""
    whole, some, times = rb"-?[0-9]{1,18}", rb"[0-9]{1,9}", [rb"-?[0-9]{1,18}(?:\.[0-9]{1,9})?"] * 2
    words = (some, some, whole, *times, rb"[a-z]{1,32}", whole, some, *times, whole, rb"[!-~]{1,64}")
    return re.compile(b" ".join(words))


class TimedCommand(bytes):
    """A command, and the seconds that its user expects it to take."""

    seconds: float

    @classmethod
    def of(cls, command: bytes, seconds: float) -> TimedCommand:
        found = cls(command)
        found.seconds = seconds
        return found


def task_line(task_id: int, command: bytes) -> bytes:
    """The line of a task, its newline included.

    A command that has options, one with a line break, or one that looks like our JSON form, is written as JSON so
    that a reader never has to guess; bytes that are no UTF-8 survive in both forms.
    """
    if isinstance(command, TimedCommand):
        text = command.decode("utf-8", "surrogateescape")
        return b"%d %s\n" % (task_id, json.dumps({"command": text, "time": command.seconds}).encode("ascii"))
    if b"\n" in command or b"\r" in command or command.startswith(_JSON_START):
        text = command.decode("utf-8", "surrogateescape")
        command = json.dumps({"command": text}).encode("ascii")
    return b"%d %s\n" % (task_id, command)


def parse_task(line: bytes) -> tuple[int, bytes]:
    """ID and command out of a task's line (with or without its newline); ValueError where it is none."""
    number, _, command = line.rstrip(b"\n").partition(b" ")
    if command[:1] == b"{" and command.startswith(_JSON_START):
        text = _options(command).get("command")
        if not isinstance(text, str):
            raise ValueError(f"no command: {command[:60]!r}")
        command = text.encode("utf-8", "surrogateescape")
    return int(number), command


def task_time(line: bytes) -> float | None:
    """The seconds that a task's line says it takes; None where it says nothing."""
    _, _, command = line.rstrip(b"\n").partition(b" ")
    if b'"time"' not in command or not command.startswith(_JSON_START):
        return None
    seconds = _options(command).get("time")
    return float(seconds) if isinstance(seconds, (int, float)) and 0 <= seconds < 1e18 else None


def _options(command: bytes) -> Any:
    try:
        return json.loads(command)
    except RecursionError:
        raise ValueError(f"no command: {command[:60]!r}") from None


@dataclass(frozen=True)
class Result:
    """One attempt at a task, as its farmer recorded it.

    Times are seconds since the epoch on the farmer's own clock; `user` and `system` are CPU seconds,
    `peak` kilobytes (getrusage(2): never less than the worker's own size). `status` is the exit
    status, `signal` the number of the signal that ended it, 0 for none. `log` says where the output
    is: `files` for logs/log_<ID>, `none` where the attempt left none.
    """

    task_id: int
    attempt: int
    slot: int
    start: float
    end: float
    outcome: bytes
    status: int
    signal: int
    user: float
    system: float
    peak: int
    log: bytes


def result_line(
    task_id: int,
    attempt: int,
    slot: int,
    start: float,
    end: float,
    outcome: bytes,
    status: int = 0,
    signal: int = 0,
    user: float = 0.0,
    system: float = 0.0,
    peak: int = 0,
    log: bytes = b"files",
) -> bytes:
    """The line of a result, its checksum and newline included."""
    form = result_form(attempt, slot, outcome, status, signal, log)
    return with_crc(form % (task_id, start, end, b"%.6f" % user, b"%.6f" % system, peak))


def result_form(attempt: int, slot: int, outcome: bytes, status: int, signal: int, log: bytes) -> bytes:
    """What attempts that ended alike have in common: a format of ID, start, end, CPU seconds as bytes, and peak."""
    return b"%%d %d %d %%.6f %%.6f %s %d %d %%s %%s %%d %s" % (attempt, slot, outcome, status, signal, log)


def with_crc(body: bytes) -> bytes:
    """A line of these words: a checksum and a newline behind them."""
    return b"%s %08x\n" % (body, zlib.crc32(body))


def result_words(line: bytes) -> list[bytes] | None:
    """The words of a whole, undamaged result line (no newline at its end), else None. They are what they must be."""
    body, _, crc = line.rpartition(b" ")
    if len(crc) != 8 or b"%08x" % zlib.crc32(body) != crc or _result().fullmatch(body) is None:
        return None
    return line.split(b" ")


def parse_result(words: list[bytes]) -> Result:
    return Result(
        int(words[0]),
        int(words[1]),
        int(words[2]),
        float(words[3]),
        float(words[4]),
        words[5],
        int(words[6]),
        int(words[7]),
        float(words[8]),
        float(words[9]),
        int(words[10]),
        words[11],
    )


def sealed(document: dict[str, object]) -> bytes:
    """A JSON document on one line with its checksum as its last member (`"crc"`, CRC-32 in hex)."""
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def unsealed(data: bytes) -> dict[str, object] | None:
    """The document that `sealed` wrote, or None where the bytes are not exactly what it wrote.

    Nor is it where it has too many values, is nested too deeply, or has a number of thousands of digits: one with a
    right checksum may be anybody's.
    """
    body, mark, rest = data.rpartition(b',"crc":"')
    if not mark or len(rest) != 11 or rest[8:] != b'"}\n':
        return None
    body += b"}"
    if b"%08x" % zlib.crc32(body) != rest[:8]:
        return None
    if body.count(b",") + body.count(b"[") + body.count(b"{") > limits.VALUES:
        return None
    try:
        document = json.loads(body, parse_int=_PARSE_INT)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


# Python before 3.10.7 takes hours for a number of a million digits; later ones refuse more than 4,300
_PARSE_INT = None if hasattr(sys, "set_int_max_str_digits") else lambda digits: int(digits[: limits.DIGITS])
