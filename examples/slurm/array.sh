#!/bin/bash
#SBATCH --job-name=farm
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) the number of elements, (2) the tasks that each runs at a time, (3) the time:
#SBATCH --array=1-4
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00

# Each element of the array is a farmer; all of them share one task list. Submit it with
#
#     sbatch array.sh tasklist.txt
#
# The farmer begins no task that would run into the last two minutes (--margin), and then gives back what is
# left, and exits with 75. Submit again, and the list goes on. A minute before the end, or up to two, Slurm sends
# USR1 to this script (B:). The next line turns the script into the farmer (exec), so the farmer gets it, and
# does the same. `env --block-signal` lets a signal that comes while Python still starts wait for the farmer.
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "${SLURM_CPUS_PER_TASK:-8}" \
    "${1:?usage: sbatch array.sh TASKLIST [OPTIONS]}" "${@:2}"
