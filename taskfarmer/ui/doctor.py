"""An examination of a file system for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from taskfarmer.doctor.findings import Findings
from taskfarmer.doctor.judgement import Judgement
from taskfarmer.ui.printable import printable, unicode
from taskfarmer.ui.table import table

SCHEMA = 1


def as_json(findings: Findings, judgement: Judgement) -> str:
    """One JSON document. `schema_version` rises when a member changes its meaning; members may be added."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA,
        "verdict": judgement.health.name.lower(),
        "exit_status": int(judgement.health),
        "conclusion": judgement.conclusion,
        "checks": [asdict(check) for check in judgement.checks],
        **asdict(findings),
    }
    return json.dumps(unicode(document), indent=2) + "\n"


def as_text(findings: Findings, judgement: Judgement, width: int | None = None) -> str:
    """A table and a verdict; `width` is that of the terminal, None for anything else."""
    head = f"{findings.host}: {printable(findings.directory.path)}\n"
    rows = [[check.name, check.state, check.found, check.means] for check in judgement.checks]
    shown = table(["CHECK", "STATE", "FOUND", "MEANS"], rows, width)
    return f"{head}\n{shown}\n{findings.host}: {printable(judgement.conclusion)}\n"
