"""A broken product for each rule of the design: a piece of the product's text, and its replacement.

A mutation compiles a changed copy of one function, and installs it during a test. The product contains no code for
this. If the original text is missing, the test reports it: the rule has moved, so move its row, too.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.simulated.world import Faults

SEEDS_FILE = Path(__file__).parent / "seeds.json"
"""The seed that finds each broken rule of the ledger, by name. find_seeds.py writes it."""


@dataclass(frozen=True)
class Mutation:
    """`edits` are (function, text, replacement); `machine` finds it: "transitions", or "ledger" from `seed` on."""

    name: str
    rule: str
    edits: tuple[tuple[str, str, str], ...]
    machine: str = "ledger"
    faults: dict[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The first seed to try; 0 for a rule that has none yet."""
        seeds: dict[str, int] = json.loads(SEEDS_FILE.read_text(encoding="utf-8"))
        return seeds.get(self.name, 0)

    def faults_of(self, seed: int) -> Faults | None:
        return Faults(seed=seed, epoch_length=4, **self.faults) if self.faults else None

    @contextmanager
    def made(self) -> Iterator[None]:
        changes: dict[str, list[tuple[str, str]]] = {}
        for path, text, other in self.edits:
            changes.setdefault(path, []).append((text, other))
        with ExitStack() as stack:
            for path, edits in changes.items():
                stack.enter_context(_changed(path, edits))
            yield


@contextmanager
def _changed(path: str, edits: list[tuple[str, str]]) -> Iterator[None]:
    module_name, _, rest = path.partition(":")
    module = importlib.import_module(f"taskfarmer.{module_name}")
    owner: Any = module
    *owners, name = rest.split(".")
    for one in owners:
        owner = getattr(owner, one)
    real = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(real))
    for text, other in edits:
        assert source.count(text) == 1, f"{path} holds {text!r} {source.count(text)} times"
        source = source.replace(text, other)
    made: dict[str, Any] = {}
    exec(compile("from __future__ import annotations\n" + source, path, "exec"), vars(module), made)
    # every module that imported a function has it under its name
    places = [owner] if owners else [one for key, one in sys.modules.items() if key.startswith("taskfarmer")]
    places = [one for one in places if vars(one).get(name) is real]
    for place in places:
        setattr(place, name, made[name])
    try:
        yield
    finally:
        for place in places:
            setattr(place, name, real)
