"""The report of `taskfarmer doctor`, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from taskfarmer.doctor.findings import Findings
from taskfarmer.doctor.judgement import Judgement
from taskfarmer.ui.printable import json_safe, printable
from taskfarmer.ui.table import table

SCHEMA = 1


def as_json(findings: Findings, judgement: Judgement) -> str:
    """Return one JSON document. `schema_version` increases if a member's meaning changes, not if members are added."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA,
        "verdict": judgement.health.name.lower(),
        "exit_status": int(judgement.health),
        "conclusion": judgement.conclusion,
        "checks": [asdict(check) for check in judgement.checks],
        **asdict(findings),
    }
    return json.dumps(json_safe(document), indent=2) + "\n"


def as_text(findings: Findings, judgement: Judgement, width: int | None = None) -> str:
    """Return a table and a verdict for a terminal of `width` columns; None if stdout is not a terminal."""
    title = f"{findings.host}: {printable(findings.directory.path)}\n"
    rows = [[check.name, check.state, check.found, check.means] for check in judgement.checks]
    checks = table(["CHECK", "STATE", "FOUND", "MEANS"], rows, width)
    return f"{title}\n{checks}\n{findings.host}: {printable(judgement.conclusion)}\n"
