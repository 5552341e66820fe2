"""Text that does a terminal no harm and that JSON has, whatever bytes it came from."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

_PLAIN_WORD = re.compile(r"[\w@%+=:,./-]+", re.ASCII)
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def printable(text: bytes | str, limit: int | None = None) -> str:
    """The same text on one line, with what cannot be shown escaped as in a Python string.

    Bytes that are no UTF-8, control characters and characters that change the direction of writing are
    escaped: commands and file names are other people's. Longer than `limit` is cut, with an ellipsis.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if limit is not None and len(text) > limit:
        text = text[: max(0, limit - 3)] + "..."
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def visible(blocks: Iterable[bytes]) -> Iterator[str]:
    """Text in blocks, as it is in lines and with its tabs; whatever else cannot be shown is escaped."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for block in blocks:
        yield _lines(decoder.decode(block))
    yield _lines(decoder.decode(b"", final=True))


def _lines(text: str) -> str:
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def _escaped(letter: str) -> str:
    if letter in _SHORT:
        return _SHORT[letter]
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was no UTF-8 (PEP 383)
        number -= 0xDC00
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def unicode(value: Any) -> Any:
    """A value as JSON has it. Bytes that are no UTF-8 become `\\xNN`: a lone surrogate would be no Unicode."""
    if isinstance(value, dict):
        return {name: unicode(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [unicode(member) for member in value]
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def moment(seconds: float) -> str:
    """A time in epoch seconds, by the clock of this place."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"  # no year of people


def shell_word(text: str) -> str:
    """A file name as it can be copied into a command line, where it is never taken for an option."""
    if text.startswith("-"):
        text = f"./{text}"
    if _PLAIN_WORD.fullmatch(text):
        return text
    if text.isprintable():
        return "'" + text.replace("'", "'\"'\"'") + "'"
    quoted = "".join("\\" + letter if letter in "'\\" else letter for letter in text)
    return "$'" + printable(quoted) + "'"
