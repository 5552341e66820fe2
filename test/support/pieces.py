"""An independent reader of packed files, see docs/workdir-format.md: every byte belongs to a head line or its piece."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = re.compile(
    rb"=== taskfarmer: task (\d+), attempt (\d+), "
    rb"(?:running, 0 bytes, slot \d+, file \d+|continued, (\d+) bytes"
    rb"|(?:exit|signal) \d+, (\d+)(?: of (\d+))? bytes, [\d-]+ [\d:]+) ===\n"
)


def check_packs(logs: Path) -> int:
    """Assert that packed files consist of whole pieces, and parts of all their pieces. Return the number of parts."""
    count = 0
    for pack in (logs / "packed").iterdir():
        data = pack.read_bytes()
        left: dict[tuple[int, int], int] = {}
        place = 0
        while place < len(data):
            head = HEAD.match(data, place)
            assert head, data[place : place + 200]
            part = int(head[1]), int(head[2])
            size = int(head[3] or head[4] or 0)
            if head[4]:
                assert not left.get(part)
                left[part] = int(head[5] or size)
            if size:
                left[part] -= size
            place = head.end() + size
            if size and data[place - 1 : place] != b"\n":
                assert data[place : place + 1] == b"\n"
                place += 1
        assert not any(left.values())
        count += len(left)
    return count
