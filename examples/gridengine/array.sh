#!/bin/bash
#$ -N farm
#$ -S /bin/bash
#$ -cwd -V -j y
#$ -notify
# Change (1) the number of elements, (2) your site's parallel environment and the number of concurrent tasks per
# element, (3) the time limits, the first one a little shorter:
#$ -t 1-3
#$ -pe smp 4
#$ -l s_rt=00:58:00,h_rt=01:00:00

# Each element of the array is a farmer; all farmers share one task list. Submit it with
#
#     qsub array.sh tasklist.txt
#
# A minute or two before it kills the job, Grid Engine sends USR1 (s_rt) or USR2 (qdel, because of -notify). On both,
# the farmer puts its running tasks back on the list and exits. env delays signals that arrive during Python start-up.

# Grid Engine starts a login shell, which resets PATH; SGE_O_PATH is the PATH at qsub.
export PATH=${SGE_O_PATH:-$PATH}

# The line that matters ends with &: bash runs a trap only if no program runs in the foreground, and $! is the pid of
# the last program in the background.
env --block-signal=USR1,USR2 pytaskfarmer.py --proc "${NSLOTS:-4}" "${1:?usage: qsub array.sh TASKLIST}" &
farmer=$!
trap 'kill -USR1 "$farmer"' USR1 USR2

# A signal interrupts wait, so repeat it; the last wait returns the farmer's exit status.
while kill -0 "$farmer" 2>/dev/null; do wait "$farmer"; done
wait "$farmer"; status=$?
# 75: tasks are left. Grid Engine restarts an element that exits with 99, unless it was deleted.
if [ "$status" = 75 ]; then exit 99; fi
exit "$status"
