"""Jobs for a scheduler: the request, the job script, its submission, and the state of the submitted jobs."""
