"""`docs/security.md` contains a proof for every promise."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_proof_that_the_page_names_exists_and_every_proof_is_named() -> None:
    page = (HERE.parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    there = {
        name
        for path in HERE.glob("test_*.py")
        if path.name != Path(__file__).name
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    minor = {
        "test_the_lock_is_in_a_folder_that_no_other_user_may_enter",
        "test_a_work_directory_is_used_again_after_it_was_closed_to_others",
        "test_a_separate_log_directory_is_checked_as_well",
        "test_characters_stay_intact_at_any_position_where_a_long_log_is_cut",
    }
    assert named == there - minor
