"""Sealed documents: JSON on one line whose last member is its checksum."""

from __future__ import annotations

import json
import sys
import zlib

from taskfarmer.formats import limits


def sealed(document: dict[str, object]) -> bytes:
    """A JSON document on one line, with its checksum as the last member (`"crc"`, CRC-32 in hex)."""
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def unsealed(data: bytes) -> dict[str, object] | None:
    """The document that `sealed` wrote; None if the bytes are not exactly its output.

    None also if the document has too many values, is nested too deeply, or has a number with thousands of digits: the
    checksum may be valid although a stranger wrote the document.
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


# Python before 3.10.7 takes hours to parse a number of a million digits; later versions refuse more than 4,300
_PARSE_INT = None if hasattr(sys, "set_int_max_str_digits") else lambda digits: int(digits[: limits.DIGITS])
