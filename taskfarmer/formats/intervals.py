"""Intervals: consecutive tasks of a segment, as a value and as text.

The text is `segment:start+count@attempt!deaths^needs`; the last four are left out if they are 1, 1, 0 and 0. Several
consecutive intervals form one word, `segment~digits@...`, with gaps and counts in base 64 (docs/workdir-format.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LONGEST_GROUP = 64
"""Maximum number of intervals in a word: a farmer that claims the first ones of `returned` parses one word."""

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_LONGEST_INTERVAL = 26  # digits in base 64: two numbers of up to 64 bits


class Interval:
    """`count` consecutive tasks in segment number `segment`, from place `start` on.

    All of them are at the same `attempt` (from 1), were running when the same number of farmers or workers died
    (`deaths`), and need at least `needs` seconds as far as is known (0: unknown). An interval is immutable.
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

    def slice(self, first: int, count: int) -> Interval:
        """`count` tasks of this interval, starting with its task number `first` (from 0)."""
        return Interval(self.segment, self.start + first, count, self.attempt, self.deaths, self.needs)

    def next_attempt(self, died: bool = False) -> Interval:
        """The same tasks at their next attempt; with `died`, with one more death."""
        return Interval(self.segment, self.start, self.count, self.attempt + 1, self.deaths + died, self.needs)

    def with_needs(self, seconds: int) -> Interval:
        """The same tasks, with `seconds` as the least time that each of them needs."""
        return Interval(self.segment, self.start, self.count, self.attempt, self.deaths, seconds)

    def __str__(self) -> str:
        return _word([self])


def parse_group(word: str) -> list[Interval]:
    """The intervals in one word, in the order of their places; ValueError if the word is invalid."""
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
    """Decode numbers from base-64 digits: five bits a digit, lowest first; the sixth bit is set if more follow."""
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
    """One string for all `intervals`, with adjacent ones merged; their order stays."""
    words: list[str] = []
    group: list[Interval] = []
    for one in merge_adjacent(intervals):
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


def merge_adjacent(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """The same tasks, with adjacent intervals merged."""
    last: Interval | None = None
    for one in intervals:
        if not one.count:
            continue
        if last is not None and last.stop == one.start and _kind(last) == _kind(one):
            last = last.slice(0, last.count + one.count)
        else:
            if last is not None:
                yield last
            last = one
    if last is not None:
        yield last


def count_tasks(intervals: Iterable[Interval]) -> int:
    return sum(one.count for one in intervals)


def subtract(held: Iterable[Interval], taken: Iterable[Interval]) -> list[Interval]:
    """The tasks of `held` without those of `taken` at the same attempt, in the same order."""
    removed: dict[tuple[int, int], list[Interval]] = {}
    for one in taken:
        removed.setdefault((one.segment, one.attempt), []).append(one)
    for cuts in removed.values():
        cuts.sort(key=lambda cut: cut.start)
    left: list[Interval] = []
    for one in held:
        place = one.start
        for cut in removed.get((one.segment, one.attempt), ()):
            if cut.stop <= place or cut.start >= one.stop:
                continue
            if cut.start > place:
                left.append(one.slice(place - one.start, cut.start - place))
            place = cut.stop
        if place < one.stop:
            left.append(one.slice(place - one.start, one.stop - place))
    return left
