#!/bin/bash
# A task that can save its state. In the task list: ./checkpoint.sh NAME STEPS
#
# A farmer that is stopped sends SIGTERM to its tasks, and SIGKILL when the time of --grace is over. What a task has
# saved by then, its next attempt finds: perhaps on another node, so it is saved where all nodes see it.
set -u
state=state-${1:?usage: checkpoint.sh NAME STEPS} steps=${2:?usage: checkpoint.sh NAME STEPS}
step=0
if [ -e "$state" ]; then step=$(<"$state"); fi

# The line that matters: the exit status is not 0. A task that ends well has finished, and is not run again. SIGTERM
# may come more than once, and to every process, and must not end what saves the state.
save() {
    trap '' TERM
    echo "$step" >"$state.new" && mv "$state.new" "$state"
}
trap 'save; exit 1' TERM

while [ "$step" -lt "$steps" ]; do
    # A step of the work. In the background: a trap waits for what runs in the foreground. SIGTERM ends it, too, as
    # it goes to all processes of the task; such a step does not count.
    sleep 0.2 &
    wait $! || { save; exit 1; }
    step=$((step + 1))
done
