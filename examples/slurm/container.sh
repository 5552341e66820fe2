#!/bin/bash
#SBATCH --job-name=container
#SBATCH --nodes=1 --ntasks=1
#SBATCH --signal=B:USR1@60
# Change (1) the tasks at a time, (2) the time, (3) below: shifter, apptainer or podman-hpc; its image in container.ini
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
runner=${2:-shifter}

# Each task in a container of its own; the farmer stays outside, so the image need not have Python. Submit it with
#
#     sbatch container.sh tasklist.txt
#
# in a folder with container.ini and container.py. There a runner is defined for each of the three: the farmer finds
# them in the directory in which it starts, and that is where sbatch was called.

# The line that matters: exec. The script becomes the farmer, and hears the signal that Slurm sends to the script.
exec env --block-signal=USR1 pytaskfarmer.py --margin 2m --runner "$runner" \
    --proc "${SLURM_CPUS_PER_TASK:-8}" "${1:?usage: sbatch container.sh TASKLIST [RUNNER]}"
