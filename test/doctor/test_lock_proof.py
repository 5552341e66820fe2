"""Which conclusions an attempt to get another node's lock permits, and which not."""

from __future__ import annotations

import pytest

from taskfarmer.peers.lockproof import Answer, LockProof, Sign, Verdict


def ready(staleness: float = 100.0) -> LockProof:
    """A proof whose peer runs and holds its lock."""
    proof = LockProof(staleness)
    proof.observe(Sign(1, True, 0), 0.0)
    proof.observe(Sign(2, True, 0), 1.0)
    return proof


def tried(answer: Answer, asked: int | None = 7) -> LockProof:
    proof = ready()
    proof.record_answer(answer, 2.0, asked)
    return proof


@pytest.mark.parametrize(
    ("answer", "verdict"), [("refused", "shared"), ("granted", "local"), ("unsupported", "unsupported")]
)
def test_a_peer_that_keeps_running_and_holding_is_a_proof(answer: Answer, verdict: Verdict) -> None:
    proof = tried(answer)
    assert proof.verdict == "unknown"
    proof.observe(Sign(5, True, 7), 3.0)
    assert proof.verdict == verdict


def test_no_attempt_is_made_before_the_peer_was_seen_alive_and_holding() -> None:
    proof = LockProof()
    assert not proof.ready
    proof.observe(Sign(1, True), 0.0)
    proof.observe(None, 1.0)
    proof.observe(Sign(1, True), 2.0)
    assert not proof.ready, "a number that does not rise may be a dead peer's"
    proof.observe(Sign(2, True), 3.0)
    assert proof.ready


def test_no_attempt_is_made_if_the_peer_does_not_hold() -> None:
    proof = LockProof()
    for beat in range(5):
        proof.observe(Sign(beat, False), float(beat))
    assert not proof.ready
    proof.observe(Sign(6, True), 6.0)
    assert not proof.ready, "its life was seen before it held"
    proof.observe(Sign(7, True), 7.0)
    assert proof.ready


@pytest.mark.parametrize("answer", ["refused", "granted"])
def test_a_peer_that_dies_during_the_attempt_proves_nothing(answer: Answer) -> None:
    proof = tried(answer)
    for second in range(3, 1000):
        proof.observe(Sign(2, True, 0) if second % 2 else None, float(second))
    assert proof.verdict == "unknown"


@pytest.mark.parametrize("answer", ["refused", "granted"])
def test_a_heartbeat_from_before_the_attempt_that_is_seen_late_proves_nothing(answer: Answer) -> None:
    proof = tried(answer)
    proof.observe(Sign(3, True, 4), 3.0)
    proof.observe(Sign(4, True, 6), 500.0)
    assert proof.verdict == "unknown"


@pytest.mark.parametrize("answer", ["refused", "granted"])
def test_a_peer_that_releases_its_lock_cancels_the_attempt(answer: Answer) -> None:
    proof = tried(answer)
    proof.observe(Sign(3, False, 7), 3.0)
    proof.observe(Sign(4, True, 8), 4.0)
    assert proof.verdict == "unknown"
    proof.observe(Sign(5, True, 9), 5.0)
    assert proof.ready, "it is tried anew"


@pytest.mark.parametrize(("answer", "verdict"), [("refused", "shared"), ("granted", "local")])
def test_a_peer_without_answers_must_be_seen_alive_after_all_caches_have_expired(
    answer: Answer, verdict: Verdict
) -> None:
    proof = tried(answer, asked=None)
    proof.observe(Sign(3, True), 50.0)
    proof.observe(Sign(4, True), 101.0)
    assert proof.verdict == "unknown", "a cache may be as old as the try"
    proof.observe(Sign(5, True), 103.0)
    assert proof.verdict == "unknown", "the first check after that may still show the time before the attempt"
    proof.observe(Sign(5, True), 500.0)
    assert proof.verdict == "unknown"
    proof.observe(Sign(6, True), 501.0)
    assert proof.verdict == verdict


def test_a_stale_view_is_not_mistaken_for_a_new_one() -> None:
    proof = tried("granted")
    proof.observe(Sign(1, True, 9), 3.0)
    assert proof.verdict == "unknown"


def test_a_verdict_is_final() -> None:
    proof = tried("refused")
    proof.observe(Sign(3, True, 7), 3.0)
    proof.observe(Sign(4, False, 8), 4.0)
    assert proof.verdict == "shared"
    assert not proof.ready
