"""The pure transitions with farmers that act on stale states: every task is in one place after each step."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from support.simulated.transitions import Histories

TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
