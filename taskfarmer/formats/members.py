"""Members of documents by type and range (docs/workdir-format.md): a right checksum does not make a document right.

Each function returns a member, or raises ValueError with words that name it and show what is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

MOST = 1 << 62
"""Larger than any offset, size, count or time; and still a file offset."""
LONGEST = 1 << 16
"""Characters of a text, at most."""
LONGEST_NAME = 255
_SHOWN = 40


def shown(value: object) -> str:
    """A value for a message. Nested or long values are cut, and never written out whole."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, str) and len(value) > _SHOWN:
        return repr(value[:_SHOWN]) + "..."
    return "a number out of range" if isinstance(value, int) and abs(value) > MOST else repr(value)


def wrong(name: str, value: object) -> ValueError:
    """The error for a member that is not as it must be."""
    return ValueError(f"member `{name}` is {shown(value)}")


def there(document: Mapping[str, Any], name: str) -> Any:
    try:
        return document[name]
    except KeyError:
        raise ValueError(f"member `{name}` is missing") from None


def is_whole(value: object, least: int = 0, most: int = MOST) -> bool:
    return type(value) is int and least <= value <= most


def whole(document: Mapping[str, Any], name: str, least: int = 0, most: int = MOST) -> int:
    value = there(document, name)
    if type(value) is not int or not least <= value <= most:
        raise wrong(name, value)
    return value


def is_number(value: object, least: float = 0.0, most: float = MOST) -> bool:
    """Whether this is a number in that range; neither true nor false, no NaN, nothing infinite."""
    return isinstance(value, (int, float)) and type(value) is not bool and least <= value <= most


def number(document: Mapping[str, Any], name: str, least: float = 0.0, most: float = MOST) -> float:
    value = there(document, name)
    if not is_number(value, least, most):
        raise wrong(name, value)
    return float(value)


def is_text(value: object, longest: int = LONGEST) -> bool:
    """Whether this is text that can be a path or an argument: without NUL, and bytes in the system's encoding."""
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def text(document: Mapping[str, Any], name: str, longest: int = LONGEST) -> str:
    value = there(document, name)
    if not is_text(value, longest):
        raise wrong(name, value)
    return str(value)


def is_name(value: object) -> bool:
    """Whether this can be the name of a file in a directory of the farm."""
    if type(value) is str and value.isascii() and value.replace("-", "").isalnum() and len(value) <= LONGEST_NAME:
        return True  # as good as all are, and a revision may have thousands
    return is_text(value, LONGEST_NAME) and value not in ("", ".", "..") and "/" not in str(value)


def name(document: Mapping[str, Any], member: str) -> str:
    value = there(document, member)
    if not is_name(value):
        raise wrong(member, value)
    return str(value)


def is_texts(value: object) -> bool:
    """Whether this is an object of texts."""
    return isinstance(value, dict) and all(is_text(one) for pair in value.items() for one in pair)


def texts(document: Mapping[str, Any], name: str) -> dict[str, str]:
    value = there(document, name)
    if not is_texts(value):
        raise wrong(name, value)
    return dict(value)


def array(document: Mapping[str, Any], name: str) -> list[Any]:
    value = there(document, name)
    if not isinstance(value, list):
        raise wrong(name, value)
    return value


def table(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = there(document, name)
    if not isinstance(value, dict):
        raise wrong(name, value)
    return value
