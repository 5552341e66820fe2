#!/bin/bash
#SBATCH --job-name=gpu
#SBATCH --gpus-per-task=1
#SBATCH --signal=USR1@60
# Change (1) the GPUs, on however many nodes, (2) the CPUs beside each, (3) the time:
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00

# One task per GPU: a farmer for each, that runs one task at a time. Submit it with
#
#     sbatch gpu.sh tasklist.txt
#
# Slurm gives each farmer a GPU of its own (CUDA_VISIBLE_DEVICES, or what your GPUs go by), and its tasks inherit that.
# Several small tasks per GPU: --proc 2.
#
# The line that matters is srun's: one farmer's end must not end the others (see srun.sh).
exec srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" --gpus-per-task=1 \
    env --block-signal=USR1 pytaskfarmer.py --margin 2m --proc 1 "${1:?usage: sbatch gpu.sh TASKLIST}"
