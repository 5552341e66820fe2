"""Results that are read from journals: exactly the bytes that count, and for a dead farmer the unbroken run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from taskfarmer.errors import Damaged, FarmGone, StaleView
from taskfarmer.formats.intervals import Interval, write_intervals
from taskfarmer.formats.results import FAILED, FINISHED, LOST, RETURNED, result_line
from taskfarmer.ledger import results
from taskfarmer.ledger import state as states
from taskfarmer.ledger.state import Segment, State
from taskfarmer.storage.layout import Workdir

ME = "node-1-0a0b0c0d"
OTHER = "node-2-0a0b0c0e"


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    (tmp_path / "results").mkdir()
    return Workdir.at(str(tmp_path))


def holding(count: int = 10, farmer: str = ME) -> State:
    state = State("farm", 0, ("import", 0), "000000-00000000", 1, (Segment("s", 0, 20),))
    return states.claim(states.join(state, farmer, farmer, 1), farmer, count)


def line(task: int, outcome: bytes = FINISHED, attempt: int = 1) -> bytes:
    return result_line(task, attempt, 0, 1.0, 2.0, outcome)


def left(workdir: Workdir, state: State, *lines: bytes) -> states.Settlement:
    Path(workdir.journal(ME)).write_bytes(b"".join(lines))
    return results.uncounted_results(workdir, state, ME)


def test_complete_lines_of_a_dead_farmers_claims_count_in_any_order(workdir: Workdir) -> None:
    lines = (line(3), line(0), line(1, FAILED), line(2, LOST))
    what = left(workdir, holding(), *lines)
    assert what.bytes == sum(map(len, lines))
    assert (what.finished, what.failed, what.ended, what.seconds) == (2, 2, 4, 4.0)
    after = states.expel(holding(), ME, what)
    assert states.problems(after) == []
    assert after.returned == "0:4+6@2"


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(line(1)[:-1], id="torn before its newline"),
        pytest.param(line(1)[:20] + b"\n", id="torn in the middle"),
        pytest.param(line(1).replace(b"finished", b"finishes"), id="corrupt"),
        pytest.param(b"\n", id="empty"),
        pytest.param(b"\0" * 80 + b"\n", id="zeros"),
        pytest.param(line(15), id="of a task that it does not hold"),
        pytest.param(line(1, attempt=2), id="of another attempt"),
        pytest.param(line(0), id="of a task that is recorded already"),
    ],
)
def test_the_run_ends_at_a_line_that_is(workdir: Workdir, second: bytes) -> None:
    what = left(workdir, holding(), line(0), second, line(2), line(3))
    assert (what.bytes, what.finished, what.done) == (len(line(0)), 1, (Interval(0, 0, 1),))


def test_attempts_that_were_released_are_in_the_run_and_record_no_result(workdir: Workdir) -> None:
    lines = (line(0, RETURNED), line(1))
    what = left(workdir, holding(), *lines)
    assert what.bytes == sum(map(len, lines))
    assert states.expel(holding(), ME, what).returned == write_intervals([Interval(0, 0, 1, 2), Interval(0, 2, 8, 2)])


def test_lines_that_already_count_are_not_counted_again(workdir: Workdir) -> None:
    state = states.settle(holding(), ME, states.Settlement(ME, len(line(0)), (Interval(0, 0, 1),), finished=1))
    what = left(workdir, state, line(0), line(1))
    assert (what.finished, what.bytes) == (1, 2 * len(line(0)))


def test_a_dead_farmer_without_a_journal_left_no_results(workdir: Workdir) -> None:
    assert results.uncounted_results(workdir, holding(), ME).done == ()


def test_a_dead_farmers_journal_that_is_shorter_than_its_counted_size_is_a_stale_view(workdir: Workdir) -> None:
    state = states.settle(holding(), ME, states.Settlement(ME, len(line(0)), (Interval(0, 0, 1),), finished=1))
    with pytest.raises(StaleView, match="not visible"):
        results.uncounted_results(workdir, state, ME)
    with pytest.raises(StaleView, match="fewer bytes are visible than"):
        left(workdir, state, line(0)[:-1])


def counting(workdir: Workdir, farmers: dict[str, list[bytes]], tail: bytes = b"") -> State:
    """A state that counts these lines of each farmer's journal; `tail` follows them and does not count."""
    state = holding(0)
    state = replace(state, farmers={})
    for farmer, lines in farmers.items():
        state = states.join(state, farmer, farmer, 1)
        state = states.claim(state, farmer, len(lines))
        data = b"".join(lines)
        done = tuple(states.parse_intervals(state.farmers[farmer].claims))
        good = sum(b" finished " in one for one in lines)
        told = states.Settlement(farmer, len(data), done, finished=good, failed=len(lines) - good)
        state = states.settle(state, farmer, told)
        Path(workdir.journal(farmer)).write_bytes(data + tail)
    return state


def test_a_survey_assigns_each_task_its_place_and_ignores_lines_that_do_not_count(workdir: Workdir) -> None:
    state = counting(workdir, {ME: [line(0), line(1, FAILED)], OTHER: [line(2)]}, tail=line(9) + b"torn")
    state = states.claim(state, ME, 2)
    found = results.survey(workdir, state, patience=0)
    assert list(found.place[:6]) == [
        results.IS_FINISHED,
        results.IS_FAILED,
        results.IS_FINISHED,
        results.HELD,
        results.HELD,
        results.UNPROCESSED,
    ]
    assert (found.finished, found.failed) == (2, 1)


def test_a_survey_finds_journals_that_the_state_has_dropped_by_their_names(workdir: Workdir) -> None:
    state = counting(workdir, {ME: [line(0)], OTHER: [line(1)]})
    state = states.leave(state, OTHER)
    size = state.departed[OTHER]
    os.rename(workdir.journal(OTHER), workdir.closed_journal(OTHER, size))
    assert results.survey(workdir, state, patience=0).finished == 2
    state = states.begin_epoch(state, "000001-00000000", {OTHER: size})
    assert results.survey(workdir, state, patience=0).finished == 2


def test_a_survey_that_cannot_see_every_counted_byte_is_a_stale_view(workdir: Workdir) -> None:
    state = counting(workdir, {ME: [line(0)], OTHER: [line(1)]})
    Path(workdir.journal(OTHER)).rename(Path(workdir.path) / "hidden")
    with pytest.raises(StaleView, match="the ledger counts"):
        results.survey(workdir, state, patience=0)
    Path(workdir.journal(OTHER)).write_bytes(line(1)[:-5])
    with pytest.raises(Damaged, match="bytes, but the ledger counts"):
        results.survey(workdir, state, patience=0)


def test_a_corrupt_counted_line_is_an_error_that_names_it(workdir: Workdir) -> None:
    state = counting(workdir, {ME: [line(0), line(1)]})
    path = Path(workdir.journal(ME))
    path.write_bytes(path.read_bytes().replace(b"1 1 0 1.0", b"1 1 0 1.5"))
    with pytest.raises(Damaged, match=f"{path}: line 2"):
        results.survey(workdir, state, patience=0)


def test_results_that_disagree_with_the_counters_are_an_error(workdir: Workdir) -> None:
    state = replace(counting(workdir, {ME: [line(0)]}), failed=1)
    with pytest.raises(Damaged, match="1 finished and 0 failed in the results"):
        results.survey(workdir, state, patience=0)


def test_reading_results_of_a_removed_farm_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FarmGone):
        results.survey(Workdir.at(str(tmp_path / "none")), holding(), patience=0)


def test_a_reader_with_a_stale_state_loads_a_newer_one() -> None:
    states = ["old", "old", "new"]

    def survey() -> str:
        state = states.pop(0)
        if state == "old":
            raise StaleView("more bytes of results can be seen than the ledger counts")
        return state

    assert results.with_newer_states(survey) == "new"
    with pytest.raises(StaleView):
        results.with_newer_states(lambda: results.with_newer_states(fails, patience=0.0), patience=0.0)


def fails() -> None:
    raise StaleView("the ledger stays old")
