#!/bin/bash
#SBATCH --job-name=shared
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) your share of the node, (2) the memory per task, (3) the time limit:
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=01:00:00

# A share of one node, for tasks with one thread: each task has a slot, a CPU and its memory. Submit it with
#
#     sbatch shared.sh tasklist.txt
#
# and again while it runs, if CPUs are free on other nodes: all these jobs share the list.

# The line that matters: exec. The script becomes the farmer and receives the signal that Slurm sends to the script.
# Set --proc, since `auto` would use the whole node if Slurm does not bind jobs to their CPUs.
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "${SLURM_CPUS_PER_TASK:-4}" \
    "${1:?usage: sbatch shared.sh TASKLIST}"
