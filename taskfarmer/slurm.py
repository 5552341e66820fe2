"""What Slurm tells a job about itself, through the environment (sbatch(1), OUTPUT ENVIRONMENT VARIABLES)."""

from __future__ import annotations

from collections.abc import Mapping

_TOLD = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "SLURMD_NODENAME",
    "SLURM_RESTART_COUNT",
)


def job(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that say which job this is; empty outside of Slurm."""
    return {name: environ[name] for name in _TOLD if name in environ}
