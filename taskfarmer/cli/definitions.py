"""The table that `runners` and `handlers` print, and the problem of each unusable definition."""

from __future__ import annotations

from typing import Literal

from taskfarmer.ui import table
from taskfarmer.ui.stderr import print_error
from taskfarmer.ui.stdout import terminal_width, write_stdout


def show_definitions(kind: Literal["runner", "tasklist"], config_file: str | None) -> int:
    # imported late: it imports pydantic, which `taskfarmer --help` does not need
    from taskfarmer.config import Configuration

    found = Configuration.search(config_file)
    for warning in (*found.warnings, *found.faults):
        print_error(f"warning: {warning}")
    rows = []
    problems = []
    for definition in found.definitions():
        if definition.kind == kind:
            problem = found.problem(definition)
            options = " ".join(f"{key}={value}" for key, value in definition.options.items())
            usable = "no" if problem else "yes"
            rows.append([definition.name, usable, definition.class_path, definition.file, options])
            problems += [problem] if problem else []
    write_stdout(table(["NAME", "USABLE", "CLASS", "DEFINED IN", "OPTIONS"], rows, terminal_width()))
    for problem in problems:
        print_error(f"not usable: {problem}")
    return 0
