"""Our quick `dataclass` does what the standard library's does, for all that we use of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from taskfarmer import plain


def made(module: Any) -> tuple[Any, Any]:
    """The same two classes, by one module or the other."""

    @module.dataclass(frozen=True)
    class Leaf:
        name: str
        size: int = 3
        marks: dict[str, int] = module.field(default_factory=dict)

    @module.dataclass
    class Tree:
        leaves: list[Any] = module.field(default_factory=list)
        best: Any = None

    return Leaf, Tree


BOTH = [pytest.param(plain, id="ours"), pytest.param(dataclasses, id="theirs")]


@pytest.mark.parametrize("module", BOTH)
def test_fields_are_given_by_place_or_by_name_or_have_their_default(module: Any) -> None:
    leaf, tree = made(module)
    one = leaf("a", marks={"x": 1})
    assert (one.name, one.size, one.marks) == ("a", 3, {"x": 1})
    assert tree().leaves is not tree().leaves
    assert leaf("a", 4) == leaf(size=4, name="a")


@pytest.mark.parametrize("module", BOTH)
@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), (("a", 1, {}, 2), {}), (("a",), {"name": "b"}), (("a",), {"sise": 1}), ((), {"size": 1, "sise": 2})],
)
def test_values_that_do_not_fit_are_refused(module: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    leaf, _ = made(module)
    with pytest.raises(TypeError):
        leaf(*values, **named)


@pytest.mark.parametrize("module", BOTH)
def test_what_is_frozen_is_not_changed_and_has_a_hash(module: Any) -> None:
    leaf, tree = made(module)
    one = leaf("a", marks=())
    with pytest.raises(AttributeError):
        one.name = "b"
    with pytest.raises(AttributeError):
        del one.name
    assert hash(one) == hash(leaf("a", 3, ()))
    other = tree()
    other.best = one
    assert other.best is one
    with pytest.raises(TypeError):
        hash(other)


@pytest.mark.parametrize("module", BOTH)
def test_objects_are_equal_by_their_fields_and_class(module: Any) -> None:
    leaf, tree = made(module)
    assert leaf("a") == leaf("a")
    assert leaf("a") != leaf("b")
    assert leaf("a") != tree()
    assert repr(leaf("a")).endswith("Leaf(name='a', size=3, marks={})")


@pytest.mark.parametrize("module", BOTH)
def test_a_copy_with_changes_and_a_document_are_made_of_the_fields(module: Any) -> None:
    leaf, tree = made(module)
    one = leaf("a", 5, {"x": 1})
    assert module.replace(one, size=6) == leaf("a", 6, {"x": 1})
    with pytest.raises(TypeError):
        module.replace(one, sise=6)
    assert module.asdict(tree([one], {"b": one})) == {
        "leaves": [{"name": "a", "size": 5, "marks": {"x": 1}}],
        "best": {"b": {"name": "a", "size": 5, "marks": {"x": 1}}},
    }


def test_a_class_has_the_fields_of_its_base_before_its_own() -> None:
    _, tree = made(plain)

    @plain.dataclass
    class More(tree):  # type: ignore[misc, valid-type]
        colour: str = "green"

        def __post_init__(self) -> None:
            self.ready = True

    one = More([1], colour="red")
    assert plain.names_of(More) == ("leaves", "best", "colour")
    assert (one.leaves, one.best, one.colour, one.ready) == ([1], None, "red", True)
