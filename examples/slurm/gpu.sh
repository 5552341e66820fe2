#!/bin/bash
#SBATCH --job-name=gpu
#SBATCH --gpus-per-task=1
#SBATCH --signal=USR1@60
# Change (1) the number of GPUs, on any number of nodes, (2) the CPUs per GPU, (3) the time limit:
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00

# One task per GPU: each GPU has a farmer, which runs one task at a time. Submit it with
#
#     sbatch gpu.sh tasklist.txt
#
# Slurm gives each farmer one GPU (CUDA_VISIBLE_DEVICES, or the variable for your GPUs), and its tasks inherit it.
# For several small tasks per GPU, use --proc 2.
#
# The line that matters is srun: a farmer that exits must not stop the others (see srun.sh).
exec srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" --gpus-per-task=1 \
    env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc 1 "${1:?usage: sbatch gpu.sh TASKLIST}"
