"""Plain English, as far as it can be counted: words that mark translated prose, per 1,000 words.

The bounds are about three times the figures of well-read projects (filelock, submitit, dramatiq, trio).
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = {"taskfarmer": ["taskfarmer"], "documents": ["README.md", "docs"], "tests": ["test"]}
AT_MOST = {
    r"\b(what|whatever)\b(?! (is|are|does|do|happens|kind)\b\?)": 3.0,
    r"\b(whoever|somebody|nobody|anybody|everybody|who)\b": 1.0,
    r"\bwhere\b": 3.0,
    r"\b(says?|said|tells?|told|hears?|heard|speaks?)\b": 1.5,
    r"\b(is|are|was|were) (no|none)\b": 0.6,
    r"\b(of ours|of one's own|of the user's own|of its own|of theirs)\b": 0.5,
    r"\b(anew|in vain|to be had)\b": 0.4,
}
AT_LEAST = {r"\b(if|when)\b": 8.0}


def paths(place: str) -> Iterator[Path]:
    path = ROOT / place
    if path.is_file():
        yield path
    else:
        yield from (one for one in sorted(path.rglob("*")) if one.suffix in (".py", ".md"))


def prose_of(path: Path) -> str:
    """The docstrings and comments of a module, or the text of a document without its code."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.sub(r"```.*?```|`[^`]*`", " ", source, flags=re.DOTALL)
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(ast.get_docstring(node) or "")
        if isinstance(node, ast.Module | ast.ClassDef):
            for inner in node.body[1:]:
                if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant):
                    found.append(str(inner.value.value))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found.append(token.string.lstrip("# "))
    return "\n".join(found)


@pytest.mark.parametrize("name", PLACES)
def test_the_prose_is_within_the_bounds(name: str) -> None:
    text = "\n".join(prose_of(path) for place in PLACES[name] for path in paths(place))
    words = len(re.findall(r"\w+", text))
    assert words > 5000, "the prose was not found"
    figures = {pattern: 1000 * len(re.findall(pattern, text, re.I)) / words for pattern in (*AT_MOST, *AT_LEAST)}
    assert {pattern: figures[pattern] for pattern, most in AT_MOST.items() if figures[pattern] > most} == {}
    assert {pattern: figures[pattern] for pattern, least in AT_LEAST.items() if figures[pattern] < least} == {}
