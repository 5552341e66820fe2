#!/bin/bash
#SBATCH --job-name=threads
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) the CPUs per element, (2) the time limit, (3) below, the threads per task:
#SBATCH --cpus-per-task=32
#SBATCH --time=01:00:00
threads=8

# For tasks with several threads: as many run at once as have CPUs for all their threads. Submit it with
#
#     sbatch --array=1-4 multithread.sh tasklist.txt
#
# OpenMP and most linear algebra libraries read the number of threads from these variables. If a program has an
# option for it, use the option in the task list.
export OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads MKL_NUM_THREADS=$threads

# The line that matters: exec. The script becomes the farmer and receives the signal that Slurm sends to the script.
slots=$((${SLURM_CPUS_PER_TASK:-8} / threads))
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "$slots" \
    "${1:?usage: sbatch multithread.sh TASKLIST}"
