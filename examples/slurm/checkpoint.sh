#!/bin/bash
# A task that can save its state. In the task list: ./checkpoint.sh NAME STEPS
#
# When a farmer stops, it sends SIGTERM to its tasks, and SIGKILL after --grace. The next attempt of a task continues
# from the saved state. It may run on another node, so save the state in a directory that all nodes share.
set -u
state=state-${1:?usage: checkpoint.sh NAME STEPS} steps=${2:?usage: checkpoint.sh NAME STEPS}
step=0
if [ -e "$state" ]; then step=$(<"$state"); fi

# The line that matters: the exit status is not 0. A task that exits with 0 is finished and not run again. SIGTERM may
# arrive several times, in every process of the task. It must not interrupt saving the state.
save() {
    trap '' TERM
    echo "$step" >"$state.new" && mv "$state.new" "$state"
}
trap 'save; exit 1' TERM

while [ "$step" -lt "$steps" ]; do
    # A step of the work. It runs in the background, since a trap waits for a program in the foreground. SIGTERM goes
    # to all processes of the task and terminates the step, too; such a step does not count.
    sleep 0.2 &
    wait $! || { save; exit 1; }
    step=$((step + 1))
done
