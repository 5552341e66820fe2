"""Jobs for a scheduler: the request, the job script, its submission, and the state of the submitted jobs."""

from taskfarmer.launch.jobs import FarmerInfo, Job, jobs_at_work
from taskfarmer.launch.records import Submission, submissions
from taskfarmer.launch.request import Request
from taskfarmer.launch.schedulers import GRID_ENGINE, SCHEDULERS, SLURM, Scheduler
from taskfarmer.launch.submit import PATIENCE, submit

__all__ = [
    "GRID_ENGINE",
    "PATIENCE",
    "SCHEDULERS",
    "SLURM",
    "FarmerInfo",
    "Job",
    "Request",
    "Scheduler",
    "Submission",
    "jobs_at_work",
    "submissions",
    "submit",
]
