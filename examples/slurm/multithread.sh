#!/bin/bash
#SBATCH --job-name=threads
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) all CPUs of an element, (2) the time, (3) below, the threads of one task:
#SBATCH --cpus-per-task=32
#SBATCH --time=01:00:00
threads=8

# Tasks of several threads: so many at a time that the threads of all of them fill the CPUs. Submit it with
#
#     sbatch --array=1-4 multithread.sh tasklist.txt
#
# OpenMP reads the number of threads from here, and most libraries of linear algebra do. A program that has an
# option for it gets it in the task list.
export OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads MKL_NUM_THREADS=$threads

# The line that matters: exec. The script becomes the farmer, and hears the signal that Slurm sends to the script.
slots=$((${SLURM_CPUS_PER_TASK:-8} / threads))
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc "$slots" \
    "${1:?usage: sbatch multithread.sh TASKLIST}"
