#!/bin/bash
#SBATCH --job-name=container
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) the concurrent tasks, (2) the time limit, (3) below: shifter, apptainer or podman-hpc; image: container.ini
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
runner=${2:-shifter}

# Runs each task in a separate container. The farmer runs outside, so the image does not need Python. Submit it with
#
#     sbatch container.sh tasklist.txt
#
# in a directory with container.ini and container.py. They define a runner for each of the three programs. The farmer
# finds them in its current directory, in which you called sbatch.

# The line that matters: exec. The script becomes the farmer and receives the signal that Slurm sends to the script.
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --runner "$runner" \
    --proc "${SLURM_CPUS_PER_TASK:-8}" "${1:?usage: sbatch container.sh TASKLIST [RUNNER]}"
