#!/bin/bash
#$ -N farm
#$ -S /bin/bash
#$ -cwd -V -j y
#$ -notify
# Change (1) the number of elements, (2) the parallel environment of your site and the tasks that each element runs at a
# time, (3) the time, the first one a little shorter:
#$ -t 1-3
#$ -pe smp 4
#$ -l s_rt=00:58:00,h_rt=01:00:00

# Each element of the array is a farmer; all of them share one task list. Submit it with
#
#     qsub array.sh tasklist.txt
#
# Grid Engine tells that the end is near with USR1 (s_rt) or USR2 (qdel, because of -notify), a minute or two before it
# kills. Both make a farmer give back what it runs and end; env keeps for it what comes while Python still starts.

# A shell that Grid Engine starts as a login shell forgets the PATH of the qsub; SGE_O_PATH is that.
export PATH=${SGE_O_PATH:-$PATH}

# The line that matters ends with &. bash runs a trap only when no program runs in the foreground, and $! is the pid of
# one in the background.
env --block-signal=USR1,USR2 pytaskfarmer.py --proc "${NSLOTS:-4}" "${1:?usage: qsub array.sh TASKLIST}" &
farmer=$!
trap 'kill -USR1 "$farmer"' USR1 USR2

# wait ends when a signal comes, so it is repeated; the last one has the farmer's exit status.
while kill -0 "$farmer" 2>/dev/null; do wait "$farmer"; done
wait "$farmer"; status=$?
# 75: tasks are left. Grid Engine starts an element again that ends with 99; one that was deleted stays deleted.
if [ "$status" = 75 ]; then exit 99; fi
exit "$status"
