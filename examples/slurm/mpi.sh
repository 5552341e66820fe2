#!/bin/bash
#SBATCH --job-name=mpi
#SBATCH --signal=USR1@60
#SBATCH --time=01:00:00
# Change (1) the number of nodes, (2) the processes per node, (3) the processes per task:
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=8
ranks=4

# For tasks that are MPI programs, or call srun: each node has a farmer, which runs its tasks on that node. In the list:
#
#     srun --overlap --nodes=1 --nodelist=$(hostname -s) --ntasks=4 ./simulate --seed 1
#
# The lines that matter: --overlap, here and in the list. The farmers are a step that holds the CPUs of the job; without
# --overlap, the steps of the tasks would wait for these CPUs forever. And --clean-env slurm: srun sets SLURM_PROCID and
# PMI_RANK for a farmer, and an MPI program that inherits them would try to join the farmers' step.
slots=$((SLURM_NTASKS_PER_NODE / ranks))
exec srun --overlap --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" --kill-on-bad-exit=0 --wait=0 \
    env --block-signal=USR1 pytaskfarmer.py --margin 2m --clean-env slurm --proc "$slots" \
    "${1:?usage: sbatch mpi.sh TASKLIST}"
