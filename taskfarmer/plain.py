"""Classes of plain fields: `dataclass`, `field`, `replace` and `asdict` as in the standard library, but made quickly.

The standard library writes the methods of each class as text and compiles them, a millisecond for a class; a farmer
that starts has fifty of them. Here all classes have the same methods, which read the names of the fields. Making an
object costs a microsecond more so; what is made for each task is written out by hand instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import asdict as asdict
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace


def names_of(kind: type) -> tuple[str, ...]:
    """The names of the fields of a class, in their order."""
    names: tuple[str, ...] = kind.__match_args__  # type: ignore[attr-defined]
    return names


class _Field:
    """A field whose default is made anew for each object."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def _field(*, default_factory: Callable[[], Any]) -> Any:
    return _Field(default_factory)


def _dataclass(kind: type | None = None, /, *, frozen: bool = False) -> Any:
    return _made(kind, frozen) if kind is not None else lambda kind: _made(kind, frozen)


def _replace(one: Any, /, **changes: Any) -> Any:
    given = {name: getattr(one, name) for name in one.__match_args__}
    given.update(changes)
    return type(one)(**given)


def _asdict(one: Any) -> dict[str, Any]:
    return {name: _bare(getattr(one, name)) for name in one.__match_args__}


def _bare(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)([_bare(one) for one in value])
    if isinstance(value, dict):
        return {key: _bare(one) for key, one in value.items()}
    return _asdict(value) if hasattr(type(value), "_defaults") else value


if not TYPE_CHECKING:
    asdict, dataclass, field, replace = _asdict, _dataclass, _field, _replace


def _made(kind: Any, frozen: bool) -> Any:
    """The class with its fields, those of its base before its own."""
    base = getattr(kind, "_defaults", {}), getattr(kind, "_makers", {}), getattr(kind, "__match_args__", ())
    kind._defaults, kind._makers = dict(base[0]), dict(base[1])
    own = (name for name in kind.__annotations__ if name not in base[2])
    kind.__match_args__ = (*base[2], *own)  # type: ignore[misc]
    for name in kind.__annotations__:
        default = kind.__dict__.get(name, kind)
        if isinstance(default, _Field):
            kind._makers[name] = default.make
            delattr(kind, name)
        elif default is not kind:
            kind._defaults[name] = default
    kind.__init__, kind.__eq__, kind.__repr__ = _init, _eq, _repr
    kind.__hash__ = _hash if frozen else None
    if frozen:
        kind.__setattr__, kind.__delattr__ = _set, _delete
    return kind


def _init(self: Any, *values: Any, **named: Any) -> None:
    names = self.__match_args__
    given = dict(self._defaults)
    given.update(zip(names, values))  # noqa: B905  (too many are seen below)
    given.update(named)
    for name, make in self._makers.items():
        if name not in given:
            given[name] = make()
    if len(given) != len(names) or len(values) > len(names) or (named and not _fit(names, len(values), named)):
        raise TypeError(f"{type(self).__qualname__} takes {', '.join(names)}; not {len(values)} values and {[*named]}")
    self.__dict__.update(given)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _fit(names: tuple[str, ...], count: int, named: dict[str, Any]) -> bool:
    """Whether all that was `named` are fields that were not among the first `count`."""
    return named.keys() <= set(names[count:])


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    mine, others = self.__dict__, other.__dict__
    return all(mine[name] == others[name] for name in self.__match_args__)


def _hash(self: Any) -> int:
    return hash(tuple(self.__dict__[name] for name in self.__match_args__))


def _repr(self: Any) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({fields})"


def _set(self: object, name: str, value: object) -> None:
    raise AttributeError(f"{type(self).__qualname__}.{name} is not to be changed; make another object (replace)")


def _delete(self: object, name: str) -> None:
    _set(self, name, None)
