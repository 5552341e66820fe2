#!/bin/bash
#SBATCH --job-name=slurm_test
#SBATCH --array=1-2
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=2
#SBATCH --signal=B:USR1@60
#SBATCH --time=00:10:00

# The example with an array job of PyTaskFarmer's documentation, from the top of this checkout:
#
#     sbatch test/slurm_test.sh test/task_list.txt
#
# Each element of the array is a farmer; all of them share the list. `exec` turns this script into the farmer, so the
# farmer gets the signal that Slurm sends to the script. For your own jobs start with examples/slurm/array.sh.
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "${SLURM_CPUS_PER_TASK:-2}" \
    "${1:?usage: sbatch test/slurm_test.sh TASKLIST}"
