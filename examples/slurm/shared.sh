#!/bin/bash
#SBATCH --job-name=shared
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) your part of the node, (2) the memory of one task, (3) the time:
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=01:00:00

# A part of one node, for tasks of one thread each: a slot, a CPU and its memory for every one. Submit it with
#
#     sbatch shared.sh tasklist.txt
#
# and again while it runs, if more CPUs are free elsewhere: all of these jobs share the list.

# The line that matters: exec. The script becomes the farmer, and hears the signal that Slurm sends to the script.
# It says --proc, since `auto` would take the whole node where Slurm does not bind jobs to their CPUs.
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "${SLURM_CPUS_PER_TASK:-4}" \
    "${1:?usage: sbatch shared.sh TASKLIST}"
