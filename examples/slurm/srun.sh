#!/bin/bash
#SBATCH --job-name=farm
#SBATCH --ntasks-per-node=1
#SBATCH --signal=USR1@60
# Change (1) the number of nodes, (2) the number of concurrent tasks per node, (3) the time limit:
#SBATCH --nodes=3
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00

# One job with many nodes and a farmer on each; all farmers share one task list. Submit it with
#
#     sbatch srun.sh tasklist.txt
#
# --signal has no B: here: the signal goes to the farmers, which srun has started, and not to this script.
#
# The line that matters is srun. A farmer without work exits, with 1 if it is the last one and tasks failed. Its exit
# must not stop the other farmers (--kill-on-bad-exit=0), nor start a timer for them (--wait=0). srun does not read the
# job's --cpus-per-task (since Slurm 22.05), so repeat it. The exit status is the highest of all farmers: 75 if tasks
# are left. Submit again to continue.
exec srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "$SLURM_CPUS_PER_TASK" \
    "${1:?usage: sbatch srun.sh TASKLIST [OPTIONS]}" "${@:2}"
