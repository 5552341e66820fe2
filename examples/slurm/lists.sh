#!/bin/bash
#SBATCH --job-name=lists
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) the numbers of the lists, (2) the number of concurrent tasks per element, (3) the time limit:
#SBATCH --array=0-3
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00

# Each element of the array runs a different task list: list000, list001, ... Submit it with
#
#     split --numeric-suffixes --suffix-length=3 --number=l/4 tasklist.txt list
#     sbatch lists.sh list
#
# This is for lists that differ. Do not split a single list: with array.sh, an element that has finished its
# tasks helps the others.
printf -v tasklist '%s%03d' "${1:?usage: sbatch lists.sh PREFIX}" "${SLURM_ARRAY_TASK_ID:?submit it with sbatch}"

# The line that matters: exec. The script becomes the farmer and receives the signal that Slurm sends to the script.
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "${SLURM_CPUS_PER_TASK:-8}" "$tasklist"
