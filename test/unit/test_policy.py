"""How much farmers claim and how often they settle: the numbers of the design."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarmer.farmer.pacing import (
    FLUSH_BYTES,
    MIN_SAMPLES,
    Pace,
    TokenBucket,
    batch_size,
    claim_size,
    expected_duration,
    jittered,
    period,
    should_flush,
    view_period,
)
from taskfarmer.formats.durations import time_class

ALONE = Pace(1, 64, 64, 0.005, 60.0)
THOUSAND = Pace(1000, 64, 64_000, 0.014, 60.0)

paces = st.builds(
    Pace,
    farmers=st.integers(1, 4000),
    slots=st.integers(1, 256),
    all_slots=st.integers(1, 256_000),
    section=st.floats(0.0001, 5),
    duration=st.none() | st.floats(0.0001, 1e6),
)


def test_a_lone_farmer_settles_every_second() -> None:
    assert period(ALONE) == 1.0


def test_with_a_thousand_farmers_the_ledger_is_idle_half_of_the_time() -> None:
    seconds = period(THOUSAND)
    assert THOUSAND.farmers * THOUSAND.section / seconds <= 0.5
    assert THOUSAND.farmers * 16 / seconds <= 240.001
    assert 60 <= seconds <= 70


@pytest.mark.parametrize("farmers", [1, 2, 16])
def test_a_few_farmers_settle_as_often_as_one(farmers: int) -> None:
    assert period(Pace(farmers, 8, 8 * farmers, 0.005, 1.0)) <= 1.1
    assert view_period(farmers, 5.0) == 5.0


@given(st.integers(17, 100_000))
def test_each_of_many_farmers_updates_the_views_less_often(farmers: int) -> None:
    assert farmers * 16 / view_period(farmers, 5.0) <= 52.001
    assert view_period(2 * farmers, 5.0) == pytest.approx(2 * view_period(farmers, 5.0))


def test_no_farmer_waits_longer_than_five_minutes() -> None:
    assert period(THOUSAND._replace(section=5.0)) == 300.0


@given(st.floats(1, 300), st.floats(0, 1, exclude_max=True))
def test_jitter_is_fifteen_percent(seconds: float, chance: float) -> None:
    assert 0.849 * seconds <= jittered(seconds, chance) <= 1.151 * seconds


def test_a_first_claim_is_a_task_for_each_slot() -> None:
    assert claim_size(ALONE._replace(duration=None), idle=64, queued=0, left=10**6) == 64
    assert claim_size(ALONE._replace(duration=None), idle=0, queued=0, left=10**6) == 0


def test_one_long_task_is_claimed_for_each_idle_slot() -> None:
    long = ALONE._replace(duration=3600.0)
    assert claim_size(long, idle=3, queued=0, left=10**6) == 3
    assert claim_size(long, idle=0, queued=0, left=10**6) == 0


def test_enough_short_tasks_are_claimed_for_the_time_until_the_next_exchange() -> None:
    short = ALONE._replace(duration=0.01)
    wanted = claim_size(short, idle=64, queued=0, left=10**6)
    needed = 64 * 1.15 / 0.01
    assert needed <= wanted <= 1.3 * needed
    assert claim_size(short, idle=0, queued=wanted, left=10**6) == 0


def test_the_last_tasks_are_shared_with_other_farmers() -> None:
    short = Pace(2, 8, 16, 0.005, 0.01)
    assert claim_size(short, idle=8, queued=0, left=2000) == 500


def test_each_farmer_claims_its_share_of_tasks_that_last_less_than_a_period() -> None:
    short = Pace(2, 8, 16, 0.005, 0.01)
    assert [claim_size(short, idle=8, queued=0, left=left) for left in (1600, 1599, 100)] == [400, 800, 50]


@given(paces, st.integers(0, 256), st.integers(0, 10**6), st.integers(0, 10**7))
def test_never_more_tasks_are_claimed_than_exist(pace: Pace, idle: int, queued: int, left: int) -> None:
    assert 0 <= claim_size(pace, idle, queued, left) <= left


@given(paces, st.integers(1, 256), st.integers(1, 10**7))
def test_an_idle_slot_with_an_empty_queue_claims_a_task_as_long_as_there_is_one(
    pace: Pace, idle: int, left: int
) -> None:
    assert claim_size(pace, idle, 0, left) >= 1


def test_batches_for_workers_are_a_fifth_of_a_second_and_one_for_long_tasks() -> None:
    durations = (None, 10.0, 0.2, 0.1, 0.01, 0.001, 0.0)
    assert [batch_size(Pace(1, 8, 8, 0.005, duration)) for duration in durations] == [1, 1, 1, 2, 20, 200, 16_384]


def test_batches_are_longer_in_large_farms_but_at_most_a_second() -> None:
    farms = (1, 30, 45, 100, 1000)
    assert [batch_size(Pace(farmers, 8, 8 * farmers, 0.001, 0.001)) for farmers in farms] == [200, 400, 600, 1000, 1000]


def test_a_bucket_gives_three_tokens_at_once_and_then_one_each_period() -> None:
    bucket: TokenBucket | None = TokenBucket(3.0, 100.0)
    for _ in range(3):
        assert bucket is not None
        full, bucket = bucket, bucket.spend(100.0, 0.5)
    assert bucket is not None and bucket.spend(100.0, 0.5) is None
    assert bucket.spend(101.9, 0.5) is None
    assert bucket.spend(102.0, 0.5) is not None
    assert full.spend(10**6, 0.5) == TokenBucket(2.0, 10**6)


def test_too_few_finished_tasks_give_no_estimate() -> None:
    assert expected_duration({}, 0) == 0.0
    assert expected_duration({time_class(100): MIN_SAMPLES - 1}, MIN_SAMPLES - 1) == 0.0


def test_quick_tasks_are_expected_to_take_a_second() -> None:
    assert expected_duration({}, 1000) == 1.0


@given(st.lists(st.floats(0.01, 1e5), min_size=20, max_size=200))
def test_nearly_all_tasks_finish_within_the_expected_time(times: list[float]) -> None:
    classes = Counter(time_class(one) for one in times if one >= 1)
    bound = expected_duration(classes, len(times))
    within = sum(one <= bound for one in times)
    assert within >= 0.95 * len(times)
    assert bound <= max(1.0, max(times) * 2**0.25 * 1.000001)


def test_without_an_estimate_only_tasks_for_idle_slots_are_claimed() -> None:
    assert claim_size(ALONE._replace(duration=None), idle=1, queued=0, left=100) == 1
    assert claim_size(ALONE._replace(duration=None), idle=3, queued=2, left=100) == 1


def test_only_a_lone_farmer_settles_many_results_early() -> None:
    assert not should_flush(ALONE, FLUSH_BYTES)
    assert should_flush(ALONE, FLUSH_BYTES + 1)
    assert not should_flush(ALONE._replace(farmers=2), 100 * FLUSH_BYTES)
