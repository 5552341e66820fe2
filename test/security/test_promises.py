"""`docs/security.md` promises nothing without a proof."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_proof_that_the_page_names_is_there_and_every_proof_is_named() -> None:
    page = (HERE.parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    there = {
        name
        for path in HERE.glob("test_*.py")
        if path.name != Path(__file__).name
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    minor = {
        "test_the_lock_lies_in_a_folder_that_nobody_else_may_enter",
        "test_a_work_directory_is_used_again_when_it_was_closed_to_others",
        "test_logs_elsewhere_are_looked_at_as_well",
        "test_characters_are_whole_wherever_a_long_log_is_cut",
    }
    assert named == there - minor
