"""Jobs for a scheduler: what is asked for, the script that says it, its way to the scheduler, and what became of it."""

from taskfarmer.submission.jobs import Job, Worker, jobs_at_work
from taskfarmer.submission.records import Submission, submissions
from taskfarmer.submission.request import Request
from taskfarmer.submission.schedulers import GRID_ENGINE, SCHEDULERS, SLURM, Scheduler
from taskfarmer.submission.submit import PATIENCE, submit

__all__ = [
    "GRID_ENGINE",
    "PATIENCE",
    "SCHEDULERS",
    "SLURM",
    "Job",
    "Request",
    "Scheduler",
    "Submission",
    "Worker",
    "jobs_at_work",
    "submissions",
    "submit",
]
