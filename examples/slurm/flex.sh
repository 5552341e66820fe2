#!/bin/bash
#SBATCH --job-name=flex
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=8
#SBATCH --signal=B:USR1@60
#SBATCH --requeue --open-mode=append
# Change (1) the shortest useful gap in the schedule, (2) the longest time limit, (3) the same again:
#SBATCH --time-min=00:30:00
#SBATCH --time=12:00:00
# shellcheck disable=SC2034,SC2317
max_timelimit=12:00:00

# For queues that start a job in any gap, kill it, and start it again: `sbatch flex.sh tasklist.txt`, once. On USR1 the
# farmer terminates its tasks, puts them back on the list, and exits with 75; then the job requeues itself.
give_back() {
    kill -USR1 "$farmer"
    while kill -0 "$farmer" 2>/dev/null; do wait "$farmer"; done
}

# The line that matters ends with &: bash runs a trap only if no program runs in the foreground, and $! is the pid of
# the last program in the background. --grace: time for tasks to save their state (checkpoint.sh), less than the 60 s.
# --wait: the job stays until all tasks are recorded. Tasks of a dead node are released at the latest after the lease.
env --block-signal=USR1 pytaskfarmer.py --wait --grace 30 --margin 2m \
    --proc "${SLURM_CPUS_PER_TASK:-8}" "${1:?usage: sbatch flex.sh TASKLIST}" &
farmer=$!
trap give_back USR1
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
again="scontrol requeue $job"

# NERSC's script, if it exists, requeues the job until the time in --comment is used up. It reads these variables.
ckpt_overhead=60 ckpt_command=give_back
setup=${VARIABLE_TIME_JOB:-/usr/common/software/variable-time-job/setup.sh}
# shellcheck source=/dev/null
if [ -r "$setup" ]; then . "$setup"; requeue_job func_trap USR1; again=true; fi

# A signal interrupts wait, so repeat it; the last wait returns the farmer's exit status. 75: tasks left. 138: the
# signal arrived before env blocked it. The limit of 100 stops a job whose tasks never fit into the time limit.
while kill -0 "$farmer" 2>/dev/null; do wait "$farmer"; done
wait "$farmer"; status=$?
if [[ $status = 75 || $status = 138 ]] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then $again; fi
exit "$status"
