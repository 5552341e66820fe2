#!/bin/bash
#SBATCH --job-name=farm
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) the number of elements, (2) the number of concurrent tasks per element, (3) the time limit:
#SBATCH --array=1-4
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00

# Each element of the array is a farmer; all farmers share one task list. Submit it with
#
#     sbatch array.sh tasklist.txt
#
# The farmer starts no task that would run into the last two minutes (--margin). Then it puts unfinished tasks back
# on the list and exits with 75. Submit again to continue. One or two minutes before the end, Slurm sends USR1 to
# this script (B:). The next line turns the script into the farmer (exec), so the farmer receives the signal and
# stops in the same way. `env --block-signal` delays signals that arrive during Python start-up.
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "${SLURM_CPUS_PER_TASK:-8}" \
    "${1:?usage: sbatch array.sh TASKLIST [OPTIONS]}" "${@:2}"
