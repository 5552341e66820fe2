#!/bin/bash
#SBATCH --job-name=lists
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) the numbers of the lists, (2) the tasks that each element runs at a time, (3) the time:
#SBATCH --array=0-3
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00

# Each element of the array has a task list of its own: list000, list001, ... Submit it with
#
#     split --numeric-suffixes --suffix-length=3 --number=l/4 tasklist.txt list
#     sbatch lists.sh list
#
# This is for lists that differ. The parts of one list are better left together, with array.sh: there an
# element that is ready helps the others.
printf -v tasklist '%s%03d' "${1:?usage: sbatch lists.sh PREFIX}" "${SLURM_ARRAY_TASK_ID:?submit it with sbatch}"

# The line that matters: exec. The script becomes the farmer, and hears the signal that Slurm sends to the script.
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "${SLURM_CPUS_PER_TASK:-8}" "$tasklist"
