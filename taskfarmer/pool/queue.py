"""The tasks that a farmer has claimed and not yet sent to a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import groupby

from taskfarmer.formats.intervals import Interval, merge_adjacent


class QueuedTasks:
    """An interval of tasks. `lines[offset]` is the line of the first of them."""

    def __init__(self, interval: Interval, lines: list[bytes]) -> None:
        self.interval = interval
        self.lines = lines
        self.offset = 0

    def cut(self, size: int) -> tuple[Interval, list[bytes]]:
        """Remove the first `size` tasks, or all if there are fewer."""
        size = min(size, self.interval.count)
        first, lines = self.interval.slice(0, size), self.lines[self.offset : self.offset + size]
        self.interval = self.interval.slice(size, self.interval.count - size)
        self.offset += size
        return first, lines


class TaskQueue:
    """A queue of intervals, which are cut where a batch ends. `count` is the number of tasks in it."""

    def __init__(self) -> None:
        self.count = 0
        self._queue: deque[QueuedTasks] = deque()

    def __iter__(self) -> Iterator[QueuedTasks]:
        return iter(self._queue)

    @property
    def attempt(self) -> int:
        """The attempt of the first task; the queue must not be empty."""
        return self._queue[0].interval.attempt

    def add(self, interval: Interval, lines: list[bytes]) -> None:
        """Append tasks, but insert them before those that a worker or a farmer died of."""
        place = len(self._queue)
        while place and self._queue[place - 1].interval.deaths and not interval.deaths:
            place -= 1
        self._queue.insert(place, QueuedTasks(interval, lines))
        self.count += interval.count

    def put_back(self, tasks: QueuedTasks) -> None:
        """Put tasks first that a worker has not started."""
        self._queue.appendleft(tasks)
        self.count += tasks.interval.count

    def cut(self, size: int) -> tuple[Interval, list[bytes]]:
        """Remove up to `size` tasks that are at the same attempt."""
        interval, lines = self._queue[0].cut(size)
        if not self._queue[0].interval.count:
            self._queue.popleft()
        self.count -= interval.count
        return interval, lines

    def release(self, keep: Callable[[bytes], bool] | None = None) -> list[Interval]:
        """Remove all tasks, except those whose lines are to `keep`."""
        queue, self._queue, self.count = self._queue, deque(), 0
        if keep is None:
            return [tasks.interval for tasks in queue]
        released: list[Interval] = []
        for tasks in queue:
            for kept, group in groupby(map(keep, tasks.lines[tasks.offset :])):
                interval, lines = tasks.cut(len(list(group)))
                if kept:
                    self.add(interval, lines)
                else:
                    released.append(interval)
        return list(merge_adjacent(released))

    def first(self, most: int) -> list[Interval]:
        """The first `most` tasks, which stay in the queue."""
        found: list[Interval] = []
        for tasks in self._queue:
            if most <= 0:
                break
            found.append(tasks.interval.slice(0, min(most, tasks.interval.count)))
            most -= found[-1].count
        return found
