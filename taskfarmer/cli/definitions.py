"""What `runners` and `handlers` show: every definition of one kind, and what is wrong with it."""

from __future__ import annotations

from typing import Literal

from taskfarmer.ui import table
from taskfarmer.ui.stderr import print_error
from taskfarmer.ui.stdout import put, terminal_width


def show_definitions(kind: Literal["runner", "tasklist"], config_file: str | None) -> int:
    # not at the top: it imports pydantic, and `taskfarmer --help` imports this
    from taskfarmer.config import Configuration

    found = Configuration.search(config_file)
    for warning in (*found.warnings, *found.faults):
        print_error(f"warning: {warning}")
    rows = []
    problems = []
    for one in found.definitions():
        if one.kind == kind:
            problem = found.problem(one)
            options = " ".join(f"{key}={value}" for key, value in one.options.items())
            rows.append([one.name, "no" if problem else "yes", one.class_path, one.file, options])
            problems += [problem] if problem else []
    put(table(["NAME", "USABLE", "CLASS", "DEFINED IN", "OPTIONS"], rows, terminal_width()))
    for problem in problems:
        print_error(f"not usable: {problem}")
    return 0
