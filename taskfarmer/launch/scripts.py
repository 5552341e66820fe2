"""Job scripts. They do what those in examples/slurm and examples/gridengine teach, with a user's own words in them."""

from __future__ import annotations

import re
import shlex

from taskfarmer.launch.request import SHORT_GRACE, Request, clock, hours
from taskfarmer.runners.shell import BASH, shell

WIDTH = 100
_PLAIN = re.compile(r"[\w@%+=:,./\[\]^-]+", re.ASCII)
_GE_EARLIER = 120

_HEARS_ITSELF = """\
# {lead} seconds before the time is over (--margin) the farmer ends what still runs, gives back what is left, and
# exits with 75. Submit again, and the list goes on. {notice} seconds before, or up to a minute earlier, Slurm sends
# USR1 to this script (B:), for a farmer that does not know the end: `exec` turns the script into the farmer, so
# the farmer gets it. `env --block-signal` keeps a signal that comes while Python starts until it can be heard.
"""
_HEARS_THROUGH_SRUN = """\
# {lead} seconds before the time is over (--margin) the farmers end what still runs, give back what is left, and
# exit with 75. {notice} seconds before, or up to a minute earlier, Slurm sends USR1 to what srun has started, for
# farmers that do not know the end. `env --block-signal` keeps a signal that comes while Python starts until it can
# be heard. A farmer that finds nothing left to take must not end the others (--kill-on-bad-exit=0), nor start a
# clock for them (--wait=0).
"""
_HEARS_IN_THE_BACKGROUND = """\
# {lead} seconds before the time is over (--margin) the farmer ends what still runs, gives back what is left, and
# exits with 75. {notice} seconds before, or up to a minute earlier, Slurm sends USR1 to this script (B:), for a farmer
# that does not know the end, and the script passes it on. The farmer is in the background (&), because bash runs
# a trap only when no program runs in the foreground.
"""
_PASS_ON = """\
farmer=$!
trap 'kill -USR1 "$farmer"' {signals}

# wait ends when a signal comes, so it is repeated; the last one has the farmer's exit status.
while kill -0 "$farmer" 2>/dev/null; do wait "$farmer"; done
wait "$farmer"; status=$?
"""
_RETURN = """
# 75: tasks are left; 138: the signal came before env had blocked it. The job then starts again, but not for ever: a
# task that never fits into the time would be begun each time. It is to see the end of the list, hence --wait above.
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
if [[ $status = 75 || $status = 138 ]] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
    scontrol requeue "$job"
fi
exit "$status"
"""
_GE_TOLD = """\
# Grid Engine tells that the end is near with USR1 (s_rt) or USR2 (qdel, because of -notify). Both make a farmer give
# back what it runs and end; env keeps for it what comes while Python still starts.
# The farmer is in the background (&), because bash runs a trap only when no program runs in the foreground.

# A shell that Grid Engine starts as a login shell forgets the PATH of the qsub; SGE_O_PATH is that.
export PATH=${SGE_O_PATH:-$PATH}
"""
_GE_AGAIN = """\
# 75: tasks are left. Grid Engine starts a job again that ends with 99; one that was deleted stays deleted.
if [ "$status" = 75 ]; then exit 99; fi
"""


def slurm_options(request: Request) -> list[list[str]]:
    """What is asked of sbatch, in lines."""
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
    notice, lead = request.notice, request.lead
    farmer = _farmer(request, '"$SLURM_CPUS_PER_TASK"', margin=lead if request.margin is None else None)
    several = request.nodes > 1
    if several:
        cpus = "--cpu-bind=none" if request.slots is None else '--cpus-per-task="$SLURM_CPUS_PER_TASK"'
        farmer = ["srun --kill-on-bad-exit=0 --wait=0 " + cpus, *farmer]
    if not request.returns:
        text = (_HEARS_THROUGH_SRUN if several else _HEARS_ITSELF).format(notice=notice, lead=lead)
        return head + _about(request) + text + _command(["exec", *farmer])
    if several:
        text = _HEARS_THROUGH_SRUN.format(notice=notice, lead=lead) + _command(farmer) + "status=$?\n"
    else:
        text = _HEARS_IN_THE_BACKGROUND.format(notice=notice, lead=lead)
        text += _command([*farmer, "&"]) + _PASS_ON.format(signals="USR1")
    return head + _about(request) + text + _RETURN


def grid_engine_script(request: Request) -> str:
    lines = [f"-N {request.name}", f"-S {_bash()}", "-cwd -V -j y", "-notify"]
    if request.requeue:
        lines.append("-r y")
    if request.array is not None:
        lines.append(f"-t 1-{request.array}")
    if (request.slots or 0) > 1 and "-pe" not in request.words:
        lines.append(f"-pe smp {request.slots}")
    if request.time is not None:
        earlier = request.time - min(max(_GE_EARLIER, request.notice), request.time / 2)
        lines.append(f"-l s_rt={hours(earlier)},h_rt={hours(request.time)}")
    names = {"-q": request.partition, "-A": request.account}
    lines += [f"{name} {shlex.quote(value)}" for name, value in names.items() if value is not None]
    if request.words:
        lines.append(shlex.join(request.words))
    farmer = _farmer(request, f'"${{NSLOTS:-{request.slots}}}"', "USR1,USR2")
    text = _GE_TOLD + _command([*farmer, "&"]) + _PASS_ON.format(signals="USR1 USR2")
    return _head("#$", lines) + _about(request) + text + (_GE_AGAIN if request.requeue else "") + 'exit "$status"\n'


def _head(mark: str, lines: list[str]) -> str:
    return "\n".join([f"#!{_bash()}", *(f"{mark} {line}" for line in lines)]) + "\n\n"


def _bash() -> str:
    """The path of bash, which these scripts need; the usual one if there is no bash here."""
    return shell() if shell().endswith("/bash") else BASH


def _about(request: Request) -> str:
    who = "A farmer on each node" if request.nodes > 1 else "A farmer"
    if request.array is not None:
        who += ", in each element of the array"
    if request.nodes > 1 or request.array is not None:
        who += "; all of them share one task list"
    return f"# {who}. Written by `taskfarmer submit`.\n#\n"


def _farmer(request: Request, cpus: str, signals: str = "USR1", margin: int | None = None) -> list[str]:
    """The parts of the command that starts a farmer: each is kept on one line."""
    slots = "auto" if request.slots is None else str(request.slots) if request.slots_given else cpus
    options = [*request.options]
    if request.returns and not any(one.startswith("--grace=") for one in options):
        options.append(f"--grace={SHORT_GRACE}")
    if margin is not None:
        options.append(f"--margin={margin}")
    if request.returns and "--wait" not in options:
        options.insert(0, "--wait")
    program = " ".join(map(_shell_word, request.program))
    start = f"env --block-signal={signals} {program} --proc {slots}"
    return [start, *map(_shell_word, options), _shell_word(request.tasklist)]


def _command(parts: list[str]) -> str:
    """A command on as many lines as it needs."""
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > WIDTH and len(lines[-1]) > len("exec"):
            lines.append("    ")
        lines[-1] += part if not lines[-1].strip() else f" {part}"
    return " \\\n".join(lines) + "\n"


def _shell_word(word: str) -> str:
    """A word for bash, in the quotes in which it is easier to read."""
    quoted = shlex.quote(word)
    if quoted == word or not {"'", "$", "`"} & set(word):
        return quoted
    return '"' + re.sub(r'(["\\$`])', r"\\\1", word) + '"'


def _sbatch_word(word: str) -> str:
    """A word in an #SBATCH line: sbatch knows quotes, and a backslash inside of them, too; # begins a comment."""
    if _PLAIN.fullmatch(word):
        return word
    name, equals, value = word.partition("=")
    if not (equals and _PLAIN.fullmatch(name)):
        name, value = "", word
    return f"{name}{equals if name else ''}'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
