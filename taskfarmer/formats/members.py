"""Type and range checks for members of documents (docs/workdir-format.md). A valid checksum does not make a document
valid.

Each function returns a member, or raises a ValueError that names the member and shows its value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

MOST = 1 << 62
"""Larger than any offset, size, count or time, but still a valid file offset."""
LONGEST = 1 << 16
"""Maximum number of characters in a text."""
LONGEST_NAME = 255
_SHOWN = 40


def shown(value: object) -> str:
    """A value for a message. Long values are shortened; nested ones are only named."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, str) and len(value) > _SHOWN:
        return repr(value[:_SHOWN]) + "..."
    return "a number out of range" if isinstance(value, int) and abs(value) > MOST else repr(value)


def wrong(name: str, value: object) -> ValueError:
    """The error for a member with a wrong type or value."""
    return ValueError(f"member `{name}` is {shown(value)}")


def there(document: Mapping[str, Any], name: str) -> Any:
    """A member of any type; ValueError if it is missing."""
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
    """Whether the value is a number in this range: not a boolean, NaN or infinity."""
    return isinstance(value, (int, float)) and type(value) is not bool and least <= value <= most


def number(document: Mapping[str, Any], name: str, least: float = 0.0, most: float = MOST) -> float:
    value = there(document, name)
    if not is_number(value, least, most):
        raise wrong(name, value)
    return float(value)


def is_text(value: object, longest: int = LONGEST) -> bool:
    """Whether the value can be a path or an argument: text without NUL that the file system encoding can represent."""
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
    """Whether the value can be the name of a file in a directory of the farm."""
    if type(value) is str and value.isascii() and value.replace("-", "").isalnum() and len(value) <= LONGEST_NAME:
        return True  # nearly all names take this fast path; a revision may have thousands
    return is_text(value, LONGEST_NAME) and value not in ("", ".", "..") and "/" not in str(value)


def name(document: Mapping[str, Any], member: str) -> str:
    value = there(document, member)
    if not is_name(value):
        raise wrong(member, value)
    return str(value)


def is_texts(value: object) -> bool:
    """Whether the value is an object whose names and values are texts."""
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
