"""Job scripts like those in examples/slurm and examples/gridengine, with the user's options filled in."""

from __future__ import annotations

import re
import shlex

from taskfarmer.launch.request import EARLY, SHORT_GRACE, Request, clock, hours
from taskfarmer.runners.shell import BASH, shell

WIDTH = 100
_PLAIN = re.compile(r"[\w@%+=:,./\[\]^-]+", re.ASCII)
_GE_SOFT_LIMIT = 120
"""Seconds from the soft limit of Grid Engine, at which it sends USR1, to the hard limit."""

_SIGNAL_TO_FARMER = """\
# {lead} seconds before the time limit (--margin) the farmer stops running tasks, releases them and exits with 75.
# Submit the script again to continue the list. {earliest} to {notice} seconds before the limit, Slurm also sends USR1
# to this script (B:), for a farmer that does not know the limit. `exec` replaces the script with the farmer, so
# the farmer receives the signal. `env --block-signal` holds back a signal that arrives while Python starts.
"""
_SIGNAL_THROUGH_SRUN = """\
# {lead} seconds before the time limit (--margin) the farmers stop running tasks, release them and exit with 75.
# {earliest} to {notice} seconds before the limit, Slurm also sends USR1 to the processes started by srun, for farmers
# that do not know the limit. `env --block-signal` holds back a signal that arrives while Python starts. A farmer that
# finds no more tasks exits early; srun must not kill the others then (--kill-on-bad-exit=0), nor later (--wait=0).
"""
_SIGNAL_IN_BACKGROUND = """\
# {lead} seconds before the time limit (--margin) the farmer stops running tasks, releases them and exits with 75.
# {earliest} to {notice} seconds before the limit, Slurm also sends USR1 to this script (B:), for a farmer that does not
# know the limit, and the script forwards it. The farmer runs in the background (&), because bash runs a trap only when
# no program runs in the foreground.
"""
_FORWARD = """\
farmer=$!
trap 'kill -USR1 "$farmer"' {signals}

# A signal interrupts wait, so it is repeated; the last one returns the farmer's exit status.
while kill -0 "$farmer" 2>/dev/null; do wait "$farmer"; done
wait "$farmer"; status=$?
"""
_REQUEUE = """
# 75: tasks are left. 138: the signal arrived before env blocked it. In both cases the job requeues itself, but at most
# 100 times: a task that never fits into the time limit would be started each time. With --wait (above) the farmer
# stays until the list is done.
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
if [[ $status = 75 || $status = 138 ]] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
    scontrol requeue "$job"
fi
exit "$status"
"""
_GE_SIGNALS = """\
# Shortly before the end, Grid Engine sends USR1 (s_rt) or USR2 (qdel, because of -notify). On both, the farmer stops
# running tasks, releases them and exits. `env --block-signal` holds back a signal that arrives while Python starts.
# The farmer runs in the background (&), because bash runs a trap only when no program runs in the foreground.

# If Grid Engine starts this script in a login shell, PATH is reset; SGE_O_PATH is the PATH of qsub.
export PATH=${SGE_O_PATH:-$PATH}
"""
_GE_RESTART = """\
# 75: tasks are left. Grid Engine restarts a job that exits with 99, except one that was deleted with qdel.
if [ "$status" = 75 ]; then exit 99; fi
"""


def slurm_options(request: Request) -> list[list[str]]:
    """The options for sbatch, as lines of words."""
    several = request.nodes > 1
    size = [f"--nodes={request.nodes}", "--ntasks-per-node=1" if several else "--ntasks=1"]
    size.append("--exclusive" if request.slots is None else f"--cpus-per-task={request.slots}")
    lines = [[f"--job-name={request.name}"], size]
    if request.array is not None:
        lines.append([f"--array=1-{request.array}"])
    times = {"--time": request.time, "--time-min": request.time_min}
    lines.append([f"{name}={clock(value)}" for name, value in times.items() if value is not None])
    names = {"--partition": request.partition, "--account": request.account, "--constraint": request.constraint}
    lines.append([f"{name}={value}" for name, value in names.items() if value is not None])
    lines.append([f"--signal={'' if several else 'B:'}USR1@{request.notice}"])
    lines.append(["--requeue", "--open-mode=append"] if request.requeue else [])
    return [line for line in lines if line]


def slurm_script(request: Request) -> str:
    lines = [*slurm_options(request), list(request.words)]
    head = _head("#SBATCH", [" ".join(map(_sbatch_word, line)) for line in lines if line])
    seconds = {"lead": request.lead, "notice": request.notice, "earliest": request.notice + EARLY}
    margin = request.lead if request.margin is None else None
    farmer = _farmer(request, '"$SLURM_CPUS_PER_TASK"', margin=margin)
    several = request.nodes > 1
    if several:
        cpus = "--cpu-bind=none" if request.slots is None else '--cpus-per-task="$SLURM_CPUS_PER_TASK"'
        farmer = ["srun --kill-on-bad-exit=0 --wait=0 " + cpus, *farmer]
    if not request.requeues_itself:
        text = (_SIGNAL_THROUGH_SRUN if several else _SIGNAL_TO_FARMER).format(**seconds)
        return head + _about(request) + text + _command(["exec", *farmer])
    if several:
        text = _SIGNAL_THROUGH_SRUN.format(**seconds) + _command(farmer) + "status=$?\n"
    else:
        text = _SIGNAL_IN_BACKGROUND.format(**seconds)
        text += _command([*farmer, "&"]) + _FORWARD.format(signals="USR1")
    return head + _about(request) + text + _REQUEUE


def grid_engine_script(request: Request) -> str:
    lines = [f"-N {request.name}", f"-S {_bash()}", "-cwd -V -j y", "-notify"]
    if request.requeue:
        lines.append("-r y")
    if request.array is not None:
        lines.append(f"-t 1-{request.array}")
    if (request.slots or 0) > 1 and "-pe" not in request.words:
        lines.append(f"-pe smp {request.slots}")
    if request.time is not None:
        soft_limit = request.time - min(max(_GE_SOFT_LIMIT, request.notice), request.time / 2)
        lines.append(f"-l s_rt={hours(soft_limit)},h_rt={hours(request.time)}")
    names = {"-q": request.partition, "-A": request.account}
    lines += [f"{name} {shlex.quote(value)}" for name, value in names.items() if value is not None]
    if request.words:
        lines.append(shlex.join(request.words))
    farmer = _farmer(request, f'"${{NSLOTS:-{request.slots}}}"', "USR1,USR2")
    text = _GE_SIGNALS + _command([*farmer, "&"]) + _FORWARD.format(signals="USR1 USR2")
    return _head("#$", lines) + _about(request) + text + (_GE_RESTART if request.requeue else "") + 'exit "$status"\n'


def _head(mark: str, lines: list[str]) -> str:
    return "\n".join([f"#!{_bash()}", *(f"{mark} {line}" for line in lines)]) + "\n\n"


def _bash() -> str:
    """The path of bash, which these scripts need; the usual path if bash is not installed here."""
    return shell() if shell().endswith("/bash") else BASH


def _about(request: Request) -> str:
    text = "One farmer"
    if request.nodes > 1:
        text += " on each node"
    if request.array is not None:
        text += " in each element of the array"
    if request.nodes > 1 or request.array is not None:
        text += "; all of them share one task list"
    return f"# {text}. Written by `taskfarmer submit`.\n#\n"


def _farmer(request: Request, cpus: str, signals: str = "USR1", margin: int | None = None) -> list[str]:
    """The parts of the command that starts a farmer; a part is never split over two lines."""
    slots = "auto" if request.slots is None else str(request.slots) if request.slots_given else cpus
    options = [*request.options]
    if request.requeues_itself and not any(one.startswith("--grace=") for one in options):
        options.append(f"--grace={SHORT_GRACE}")
    if margin is not None:
        options.append(f"--margin={margin}")
    if request.requeues_itself and "--wait" not in options:
        options.insert(0, "--wait")
    program = " ".join(map(_shell_word, request.program))
    start = f"env --block-signal={signals} {program} --proc {slots}"
    return [start, *map(_shell_word, options), _shell_word(request.tasklist)]


def _command(parts: list[str]) -> str:
    """A command, wrapped at `WIDTH`."""
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > WIDTH and len(lines[-1]) > len("exec"):
            lines.append("    ")
        lines[-1] += part if not lines[-1].strip() else f" {part}"
    return " \\\n".join(lines) + "\n"


def _shell_word(word: str) -> str:
    """A word quoted for bash, in the kind of quotes that is easier to read."""
    quoted = shlex.quote(word)
    if quoted == word or not {"'", "$", "`"} & set(word):
        return quoted
    return '"' + re.sub(r'(["\\$`])', r"\\\1", word) + '"'


def _sbatch_word(word: str) -> str:
    """A word quoted for an #SBATCH line: sbatch supports quotes and backslashes in them; # starts a comment."""
    if _PLAIN.fullmatch(word):
        return word
    name, equals, value = word.partition("=")
    if not (equals and _PLAIN.fullmatch(name)):
        name, value = "", word
    return f"{name}{equals if name else ''}'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
