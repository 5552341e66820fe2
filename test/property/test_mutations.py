"""Tests on transitions or on the ledger detect each product in which one rule of the design is broken.

`seeds.json` has a seed for each rule of the ledger. If the product has changed since, the test also tries later seeds;
`find_seeds.py` updates the seeds.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from support.simulated.farmyard import history
from support.simulated.find_seeds import first_found
from support.simulated.mutations import SEEDS_FILE, Mutation
from support.simulated.rules import OF_THE_LEDGER
from support.simulated.rules_of_states import OF_STATES
from support.simulated.transitions import Histories

MUTATIONS = (*OF_THE_LEDGER, *OF_STATES)
SEEDS = 600


def found_by_transitions(mutation: Mutation) -> bool:
    machine = seed(1)(type("Mutated", (Histories,), {}))
    chosen = settings(
        max_examples=300,
        stateful_step_count=50,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with mutation.made():
        try:
            run_state_machine_as_test(machine, settings=chosen)
        except Exception:
            return True
    return False


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_rule_is_found(mutation: Mutation) -> None:
    if mutation.machine == "transitions":
        assert found_by_transitions(mutation)
    else:
        assert first_found(mutation, range(mutation.seed, mutation.seed + SEEDS)) is not None, "run find_seeds.py"


def test_each_rule_of_the_ledger_has_a_seed() -> None:
    assert list(json.loads(SEEDS_FILE.read_text(encoding="utf-8"))) == [mutation.name for mutation in OF_THE_LEDGER]


@pytest.mark.parametrize("mutation", OF_THE_LEDGER, ids=lambda one: one.name)
def test_no_violation_is_found_if_no_rule_is_broken(mutation: Mutation) -> None:
    history(mutation.seed, mutation.faults_of(mutation.seed))
