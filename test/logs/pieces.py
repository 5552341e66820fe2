"""An independent reading of packed files by docs/workdir-format.md: every index line tells where its bytes are."""

from __future__ import annotations

import re
import zlib
from pathlib import Path


def check_index(logs: Path) -> int:
    """Assert that index and packed file of each farmer agree; how many parts there are."""
    count = 0
    for index in (logs / "packed").glob("*.index"):
        packed = index.with_suffix("").read_bytes()
        for line in index.read_bytes().split(b"\n")[:-1]:
            body, _, crc = line.rpartition(b" ")
            assert zlib.crc32(body) == int(crc, 16), line
            words = body.split(b" ")
            if words[0] != b"part" or words[6] == b"-":
                continue
            count += 1
            whole = 0
            for piece in words[6].split(b","):
                start, size = map(int, piece.split(b"+"))
                assert start + size <= len(packed)
                whole = zlib.crc32(packed[start : start + size], whole)
                head = packed[packed.rindex(b"=== taskfarmer: task ", 0, start) : start]
                assert re.fullmatch(
                    rb"=== taskfarmer: task %s, attempt %s, [^\n]*\b%d bytes[^\n]* ===\n" % (words[1], words[2], size),
                    head,
                )
            assert whole == int(words[5], 16)
    return count
