#!/bin/bash
#SBATCH --job-name=srun_test
#SBATCH --nodes=2 --ntasks-per-node=1 --cpus-per-task=2
#SBATCH --signal=USR1@60
#SBATCH --time=00:10:00

# The example with several nodes in one job of PyTaskFarmer's documentation, from the top of this checkout:
#
#     sbatch test/srun_test.sh test/task_list.txt
#
# srun starts a farmer on each node; all of them share the list. A farmer that ends must neither end the others
# (--kill-on-bad-exit=0) nor start a clock for them (--wait=0). For your own jobs start with examples/slurm/srun.sh.
exec srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "$SLURM_CPUS_PER_TASK" \
    "${1:?usage: sbatch test/srun_test.sh TASKLIST}"
