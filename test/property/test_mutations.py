"""A product with one rule of the design broken is found out, by the machine over transitions or over the ledger.

Each mutation names the first seed that finds it; where the product has changed since, seeds after it are tried too.
"""

from __future__ import annotations

import pytest
from farmyard import history
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from mutations import Mutation
from rules import OF_THE_LEDGER
from rules_of_states import OF_STATES
from transitions import Histories

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


def found_by_ledger(mutation: Mutation, start: int, seeds: int) -> int | None:
    """The first seed whose run goes wrong."""
    with mutation.made():
        for number in range(start, start + seeds):
            try:
                history(number, mutation.weather_of(number))
            except Exception:
                return number
    return None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_rule_is_found(mutation: Mutation) -> None:
    if mutation.machine == "transitions":
        assert found_by_transitions(mutation)
    else:
        assert found_by_ledger(mutation, mutation.seed, SEEDS) is not None


@pytest.mark.parametrize("mutation", OF_THE_LEDGER, ids=lambda one: one.name)
def test_nothing_is_found_where_no_rule_is_broken(mutation: Mutation) -> None:
    history(mutation.seed, mutation.weather_of(mutation.seed))
