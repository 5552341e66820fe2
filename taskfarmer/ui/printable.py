"""Escape untrusted bytes and text for a terminal, for JSON, and for a shell."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

_PLAIN_WORD = re.compile(r"[\w@%+=:,./-]+", re.ASCII)
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def printable(text: bytes | str, limit: int | None = None) -> str:
    """Return the text on one line, with unprintable characters escaped as in a Python string.

    Commands and file names may come from other users. So bytes that are not valid UTF-8, control characters, and
    characters that change the writing direction are escaped. Text longer than `limit` ends with an ellipsis.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if limit is not None and len(text) > limit:
        text = text[: max(0, limit - 3)] + "..."
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def escape_blocks(blocks: Iterable[bytes]) -> Iterator[str]:
    """Escape unprintable characters in blocks of text; newlines and tabs stay."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for block in blocks:
        yield _escape_lines(decoder.decode(block))
    yield _escape_lines(decoder.decode(b"", final=True))


def _escape_lines(text: str) -> str:
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def _escape(letter: str) -> str:
    if letter in _SHORT:
        return _SHORT[letter]
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not valid UTF-8 (PEP 383)
        number -= 0xDC00
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def json_safe(value: Any) -> Any:
    """Prepare a value for JSON. Invalid UTF-8 becomes `\\xNN`, since a lone surrogate is not valid Unicode."""
    if isinstance(value, dict):
        return {name: json_safe(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(member) for member in value]
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def local_time(seconds: float) -> str:
    """Format epoch seconds as local time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"  # beyond the years of the C library


def shell_word(text: str) -> str:
    """Quote a file name for a shell, so that it can be pasted and is never read as an option."""
    if text.startswith("-"):
        text = f"./{text}"
    if _PLAIN_WORD.fullmatch(text):
        return text
    if text.isprintable():
        return "'" + text.replace("'", "'\"'\"'") + "'"
    quoted = "".join("\\" + letter if letter in "'\\" else letter for letter in text)
    return "$'" + printable(quoted) + "'"
