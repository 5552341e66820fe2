"""Environment variables of scheduled jobs: which of them identify the job, and which ones its tasks must not see."""

from __future__ import annotations

from collections.abc import Mapping

_SLURM = (
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_STEP_ID",
    "SLURM_UMASK",
    "SLURM_PROCID",
    "SLURMD_NODENAME",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_END_TIME",
    "SLURM_CPUS_ON_NODE",
    "SLURM_CPUS_PER_TASK",
)
_GRID_ENGINE = (
    "JOB_ID",
    "JOB_NAME",
    "SGE_TASK_ID",
    "SGE_ROOT",
    "SGE_CELL",
    "SGE_CLUSTER_NAME",
    "LOGNAME",
    "RESTARTED",
    "QUEUE",
    "NSLOTS",
)
_SPECIAL_STEPS = 1 << 31
"""Higher step numbers are Slurm's special steps: the batch script, `extern`, and an interactive shell."""
_OF_A_STEP = (
    "PMI_",
    "PMI2_",
    "PMIX_",
    "PALS_",
    "OMPI_COMM_WORLD_",
    "SLURM_STEP_",
    "SLURM_SRUN_COMM_",
    "SLURM_CPU_BIND",
    "SLURM_MPI_TYPE",
    "SLURM_LAUNCH_NODE_IPADDR",
    "SLURM_DISTRIBUTION",
)
_OF_A_TASK = frozenset(
    (
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
        "SLURM_GTIDS",
        "SLURM_TASK_PID",
        "SLURM_STEPID",
        "SLURM_NTASKS",
        "SLURM_NPROCS",
        "SLURM_UMASK",
    )
)


def job(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that identify this job, of Slurm or Grid Engine; empty outside of both.

    A variable that is set but empty counts as not set: container runtimes and login scripts pass such variables on.
    """
    names: tuple[str, ...] = ()
    if in_slurm(environ):
        names = _SLURM
    elif environ.get("SGE_ROOT") and environ.get("JOB_ID", "").isdecimal():
        names = _GRID_ENGINE
    return {name: environ[name] for name in names if environ.get(name)}


def in_slurm(variables: Mapping[str, str]) -> bool:
    """Whether these are the variables of a Slurm job."""
    return bool(variables.get("SLURM_JOB_ID"))


def job_name(job: Mapping[str, str]) -> str | None:
    """The scheduler's ID of a job, with an array element as `123_4`; None outside of a job."""
    for array, element in (("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"), ("JOB_ID", "SGE_TASK_ID")):
        if job.get(array) and (job.get(element) or "undefined") != "undefined":
            return f"{job[array]}_{job[element]}"
    return job.get("SLURM_JOB_ID") or job.get("JOB_ID")


def step_name(job: Mapping[str, str]) -> str | None:
    """The number of the Slurm step that a farmer runs in, such as `0`; None outside of a step, or if uncertain.

    `sbatch` inside a step passes SLURM_STEP_ID of that step on to another job. Only tasks of `srun` have SLURM_UMASK,
    too (srun(1), OUTPUT ENVIRONMENT VARIABLES): Slurm removes it from the environment of a batch script.
    """
    step = job.get("SLURM_STEP_ID", "")
    is_certain = step.isascii() and step.isdecimal() and int(step) < _SPECIAL_STEPS and "SLURM_UMASK" in job
    return step if is_certain else None


def restarts(job: Mapping[str, str]) -> int:
    """How often the scheduler had restarted a job before this run of it; Grid Engine counts to 1."""
    count = job.get("SLURM_RESTART_COUNT") or job.get("RESTARTED") or "0"
    return int(count) if count.isascii() and count.isdecimal() else 0


def cpus(job: Mapping[str, str]) -> str | None:
    """The number of CPUs that a farmer of this job may use, according to its scheduler."""
    names = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "NSLOTS")
    return next((job[name] for name in names if job.get(name)), None)


def nodes(environ: Mapping[str, str]) -> int:
    """The number of nodes of this Slurm step or job (srun(1), OUTPUT ENVIRONMENT VARIABLES); 1 outside of Slurm."""
    count = environ.get("SLURM_STEP_NUM_NODES") or environ.get("SLURM_NNODES") or ""
    return max(1, int(count)) if count.isascii() and count.isdigit() else 1


def of_a_step(environ: Mapping[bytes, bytes]) -> frozenset[bytes]:
    """The variables by which a program considers itself a rank of its farmer's step.

    Variables that identify the job are not among them: a task that calls `srun` needs them.
    """
    prefixes = tuple(prefix.encode() for prefix in _OF_A_STEP)
    names = {name.encode() for name in _OF_A_TASK}
    return frozenset(name for name in environ if name in names or name.startswith(prefixes))
