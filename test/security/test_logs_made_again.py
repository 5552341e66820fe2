"""A log directory that is removed while a farmer runs is only reopened if it belongs to no other user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskfarmer.worker.context import NotStarted, SlotContext
from taskfarmer.worker.output.folder import LogFolder


@pytest.mark.parametrize("kind", ["a link", "open to all"])
def test_a_log_directory_that_another_user_put_in_its_place_is_not_used(tmp_path: Path, kind: str) -> None:
    logs, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    logs.mkdir()
    elsewhere.mkdir()
    folder = LogFolder(
        SlotContext(0, "f", "host", str(tmp_path), str(logs), os.open(logs, os.O_RDONLY | os.O_DIRECTORY))
    )
    logs.rmdir()
    if kind == "a link":
        logs.symlink_to(elsewhere)
    else:
        logs.mkdir()
        logs.chmod(0o777)
    with pytest.raises(NotStarted):
        folder.open_log(7, 1)
    assert (os.listdir(elsewhere), os.listdir(logs)) == ([], [])
