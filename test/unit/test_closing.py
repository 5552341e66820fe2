"""The last messages of a farmer: it explains each exit status other than 0."""

from __future__ import annotations

import pytest

from taskfarmer.options import Ending, Exit, Progress
from taskfarmer.ui import closing


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("unrecorded", [0, 1])
@pytest.mark.parametrize("unprocessed", [0, 3])
@pytest.mark.parametrize("failed", [0, 1])
@pytest.mark.parametrize("trouble", [None, "the disk is full"])
def test_each_exit_status_comes_with_a_message(
    again: bool, unrecorded: int, unprocessed: int, failed: int, trouble: str | None
) -> None:
    farm = Progress(9, 9 - unprocessed - failed, failed, unprocessed, 0, 0, 1)
    ending = Ending(1, 0, 0, unrecorded, farm, None, trouble, (), 1.0, again)
    _, important = closing(ending, "farm", int(ending.status))
    assert bool(important or ending.trouble) == (ending.status != Exit.DONE)
