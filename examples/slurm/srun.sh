#!/bin/bash
#SBATCH --job-name=farm
#SBATCH --ntasks-per-node=1
#SBATCH --signal=USR1@60
# Change (1) the number of nodes, (2) the tasks that each runs at a time, (3) the time:
#SBATCH --nodes=3
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00

# One job, many nodes, a farmer on each; all of them share one task list. Submit it with
#
#     sbatch srun.sh tasklist.txt
#
# --signal stands without B: here. The signal goes to what srun has started, to the farmers, and not to this script.
#
# The line that matters is srun's. A farmer that finds nothing left to take ends, with 1 if a task failed: that must
# not end the other farmers (--kill-on-bad-exit=0), nor start a clock for them (--wait=0). srun does not read
# --cpus-per-task of the job (Slurm 22.05), so it is said again. The exit status is the highest of the farmers': 75 if
# tasks are left. Submit again, and the list goes on.
exec srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "$SLURM_CPUS_PER_TASK" \
    "${1:?usage: sbatch srun.sh TASKLIST [OPTIONS]}" "${@:2}"
