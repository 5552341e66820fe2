"""A broken product for each rule of the design: a piece of the product's text, and what stands there instead.

A mutation is made by compiling a changed copy of one function, and put in place for the time of a test. Nothing in
the product knows of it. Where the text is not there any more, the test says so: the rule has moved, move its row too.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from world import Weather

STALE = {"stale": 5.0, "locks": "none"}
LOSSY = {"lost": 0.1, "stale": 1.0, "locks": "none"}
SLEEPY = {"pauses": 0.003, "stale": 0.5, "kills": 0.001}
GUSTY = {"refused": 0.02, "kills": 0.001}


@dataclass(frozen=True)
class Mutation:
    """`edits` are (function, text, other text); `machine` is what finds it: "transitions", or "ledger" from `seed` on."""

    name: str
    rule: str
    edits: tuple[tuple[str, str, str], ...]
    machine: str = "ledger"
    weather: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def weather_of(self, seed: int) -> Weather | None:
        return Weather(seed=seed, epoch_length=4, **self.weather) if self.weather else None

    @contextmanager
    def made(self) -> Iterator[None]:
        changes: dict[str, list[tuple[str, str]]] = {}
        for path, text, other in self.edits:
            changes.setdefault(path, []).append((text, other))
        with ExitStack() as stack:
            for path, edits in changes.items():
                stack.enter_context(_changed(path, edits))
            yield


@contextmanager
def _changed(path: str, edits: list[tuple[str, str]]) -> Iterator[None]:
    module_name, _, rest = path.partition(":")
    module = importlib.import_module(f"taskfarmer.{module_name}")
    owner: Any = module
    *owners, name = rest.split(".")
    for one in owners:
        owner = getattr(owner, one)
    real = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(real))
    for text, other in edits:
        assert source.count(text) == 1, f"{path} holds {text!r} {source.count(text)} times"
        source = source.replace(text, other)
    made: dict[str, Any] = {}
    exec(compile("from __future__ import annotations\n" + source, path, "exec"), vars(module), made)
    # a function stands under its name in every module that imported it
    places = [owner] if owners else [one for key, one in sys.modules.items() if key.startswith("taskfarmer")]
    places = [one for one in places if vars(one).get(name) is real]
    for place in places:
        setattr(place, name, made[name])
    try:
        yield
    finally:
        for place in places:
            setattr(place, name, real)


COMMITS, LEDGER, STATE = "ledger.commits:Commits", "ledger.ledger:Ledger", "ledger.state"

MUTATIONS = (
    # --- the commit -------------------------------------------------------------------------------
    Mutation(
        "a revision older than one that was seen is accepted",
        "Read the newest revision N ... never accept one older than was seen before",
        ((f"{COMMITS}._look", "state = self.known", "state = None"),),
        weather=STALE,
    ),
    Mutation(
        "the file is linked before its bytes are on the disk",
        "Write it to a fresh file in ledger/<epoch>/tmp/, fsync, close",
        (("durable:prepare", "os.fsync(fd)", "pass"),),
    ),
    Mutation(
        "the prepared name stays while it is read who won",
        "Unlink the prepared name: from here on the outcome cannot change",
        (("durable:publish", "os.unlink(prepared)", "pass"),),
        weather={"late": 0.2, "locks": "none"},
    ),
    Mutation(
        "the reply of link is believed",
        "Who won is read from the ledger, never from the reply: NFS can lose one",
        (
            (f"{COMMITS}._link", "if found.by == following.by:", "if answer is None:"),
            (f"{COMMITS}.commit", "if mine is not None and mine.seq == seq:", "if False:"),
        ),
        weather=LOSSY,
    ),
    Mutation(
        "an earlier try of the same commit is not recognized",
        "Who won is read from the ledger (by of revision N+1, or of our entry in the newest state)",
        ((f"{COMMITS}.commit", "if mine is not None and mine.seq == seq:", "if False:"),),
        weather=LOSSY,
    ),
    Mutation(
        "what was meant to be written is taken for what was written",
        "Who won is read from the ledger: what it holds is known from the committed state alone",
        ((f"{COMMITS}._link", "return found\n", "return following\n"),),
        weather=LOSSY,
    ),
    Mutation(
        "the directory is not synced after a commit",
        "fsync the epoch's directory. Only then may a claimed task start",
        ((f"{COMMITS}.make_durable", "durable.sync_directory(self.workdir.epoch(epoch))", "pass"),),
    ),
    Mutation(
        "a lost reply makes a commit void",
        "ENOENT or ESTALE at link is not lost, but look again from nothing",
        ((f"{COMMITS}._try", "if won is False:", "if won is not True:"),),
        weather=LOSSY,
    ),
    Mutation(
        "a fork is not noticed",
        "a mismatch of what link said and what the ledger says is a fork, and fatal",
        ((f"{COMMITS}._link", "if answer is None and found.by != following.by:", "if False:"),),
        weather={"lying": 0.5, "locks": "none"},
    ),
    Mutation(
        "a damaged revision is passed over",
        "A damaged revision is an error that names the file, never skipped",
        ((f"{COMMITS}._load", "            raise Damaged(", "            return None\n            raise Damaged("),),
    ),
    Mutation(
        "the farm's id is not compared",
        "A farmer of a farm that was removed and made anew ends its tasks, writes nothing, exits non-zero",
        (
            (f"{COMMITS}._listed", "if state is not None and state.farm == self.farm:", "if state is not None:"),
            (f"{COMMITS}._hinted", "if found is not None and found.farm == self.farm", "if found is not None"),
            (f"{COMMITS}.check_farm", 'if document is None or document.get("farm") != self.farm:', "if False:"),
        ),
        weather={"pauses": 0.001, "locks": "local"},
    ),
    Mutation(
        "a commit that failed is taken for one that did not land",
        "never believed: NFS can lose a reply, and show what was",
        ((f"{LEDGER}._resolve", "if not self._landed(state) and self.commits.uncertain:", "if False:"),),
        weather=LOSSY,
    ),
    Mutation(
        "the name of a farm is not brought to the disk",
        "a farm that somebody works in is there after a power failure",
        ((f"{LEDGER}.exchange", "self._settle_in()", "pass"),),
        weather={"refused": 0.05},
    ),
    # --- epochs -----------------------------------------------------------------------------------
    Mutation(
        "a fresh epoch is named before it is durable",
        "the committer makes the next epoch's directory, complete and durable, and its revision names it",
        (("durable:make_directory", "sync_directory(os.path.dirname(path))", "pass"),),
    ),
    Mutation(
        "an epoch begins before the end of the one before is durable",
        "fsync the epoch's directory: all that a farmer builds on is on the disk",
        ((f"{COMMITS}._try", "self.make_durable(state)", "pass"),),
        weather={"kills": 0.003, "locks": "none", "refused": 0.02},
    ),
    Mutation(
        "an epoch is removed as soon as it is over",
        "Two epochs later the old one is removed",
        (("ledger.epochs:sweep", "after(current) - 2", "after(current) - 1"),),
    ),
    Mutation(
        "tmp/ is removed last",
        "first its tmp/ (now nobody who slept through it has anything to link), then its names",
        (
            (
                "ledger.epochs:remove",
                "    prepared = workdir.prepared(name)\n",
                "    prepared = workdir.prepared(name)\n"
                "    for entry in sorted(filter(str.isdigit, os.listdir(workdir.epoch(name))), key=int):\n"
                "        durable.forget(os.path.join(workdir.epoch(name), entry))\n",
            ),
        ),
        weather={"pauses": 0.01, "locks": "none", "kills": 0.001},
    ),
    Mutation(
        "names of an epoch are removed from the highest on",
        "then its names, ascending, then itself",
        (("ledger.epochs:remove", "key=int)", "key=int, reverse=True)"),),
    ),
    Mutation(
        "a sweeper who slept removes the epochs of another farm",
        "A deleted farm: a farmer of it writes nothing",
        (("ledger.epochs:_is_of", 'return document is not None and document.get("farm") == farm', "return True"),),
        weather={"pauses": 0.02, "locks": "local"},
    ),
    Mutation(
        "lengths are forgotten before they are in the names",
        "Lengths of departed farmers move into the names of their result files before the state forgets them",
        (("ledger.epochs:close_journals", "os.rename(workdir.journal(name), target)", "pass"),),
    ),
    Mutation(
        "the names of closed journals are not durable",
        "Lengths of departed farmers move into the names of their result files before the state forgets them",
        (("ledger.epochs:close_journals", "durable.sync_directory(workdir.results)", "pass"),),
    ),
    # --- results ----------------------------------------------------------------------------------
    Mutation(
        "results count before they are on the disk",
        "appends a line as each task ends, and fsyncs the file before the commit that settles them",
        (("durable:Journal.append", "os.fsync(self._fd)", "pass"),),
    ),
    Mutation(
        "a failed fsync is tried again",
        "a failed fsync is never tried again on the same file",
        (
            (
                "durable:Journal.append",
                "        os.fsync(self._fd)\n",
                "        try:\n            os.fsync(self._fd)\n        except OSError:\n            os.fsync(self._fd)\n",
            ),
        ),
        weather=GUSTY,
    ),
    Mutation(
        "a journal that failed is written on",
        "a journal that failed once is left as it is",
        (
            ("durable:Journal.append", "self.failed = True", "pass"),
            (f"{LEDGER}._write", "self._journal.failed = True", "pass"),
        ),
        weather=GUSTY,
    ),
    Mutation(
        "what does not count yet is not written into the fresh journal",
        "everything that does not count yet is written again into a fresh one",
        ((f"{LEDGER}._write", "self._written + fresh, []", "fresh, []"),),
        weather=GUSTY,
    ),
    Mutation(
        "a dead farmer's journal is counted as it is seen",
        "It fsyncs that file first, so that what it counts stays",
        (("ledger.results:left_behind", "durable.sync_file(path)", "pass"),),
        weather={"kills": 0.002},
    ),
    Mutation(
        "damaged lines of a dead farmer are skipped",
        "the commit counts the unbroken run of whole, valid lines of its result file",
        (
            (
                "ledger.results:_unbroken",
                "            break\n        if words[5]",
                "            size += len(line) + 1\n            continue\n        if words[5]",
            ),
        ),
        weather={"kills": 0.003, "refused": 0.02},
    ),
    Mutation(
        "lines count whose tasks the dead farmer does not hold",
        "valid lines of its result file that are claims of it",
        (
            (
                "ledger.results:_unbroken",
                "            if one is None:\n                break\n            done.append(one)",
                "            if one is not None:\n                done.append(one)",
            ),
        ),
        weather={"kills": 0.003},
    ),
    Mutation(
        "all of a departed farmer's journal counts",
        "and freezes that length. Whatever a ghost appends later does not count",
        (
            (
                "ledger.results:journals",
                "size = wanted[journal] if journal in wanted",
                "size = len(durable.read(os.path.join(workdir.results, name))) if journal in wanted",
            ),
        ),
        weather={"kills": 0.002, "pauses": 0.002},
    ),
    Mutation(
        "bytes that cannot be seen are done without",
        "must see exactly the bytes that the state counts of every one of them",
        (
            (
                "ledger.results:read_counted",
                "if sum(size for _, size in found.values()) == state.journaled:",
                "if True:",
            ),
        ),
        weather=STALE,
    ),
    Mutation(
        "retry believes what it sees of results",
        "their sum must equal the state's counters; else the view is stale",
        (
            (
                "ledger.results:read_counted",
                "if sum(size for _, size in found.values()) == state.journaled:",
                "if True:",
            ),
            ("ledger.results:_exactly", "if len(data) == size:", "if True:"),
            (
                "ledger.results:survey",
                "if (found.finished, found.failed) != (state.finished, state.failed):",
                "if False:",
            ),
        ),
        weather=STALE,
    ),
    # --- farmers ----------------------------------------------------------------------------------
    Mutation(
        "a farmer that was expelled comes back",
        "A farmer that finds itself expelled kills its tasks, records nothing and exits non-zero",
        (
            (f"{LEDGER}._change", "            states.entry_of(state, self.me)\n", "            pass\n"),
            (
                f"{STATE}:entry_of",
                "return state.farmers[farmer]",
                'return state.farmers.get(farmer) or Entry(0, "", farmer, 0, 1)',
            ),
        ),
        weather=SLEEPY,
    ),
    Mutation(
        "a farewell is folded in more than once",
        "a farewell note that the next committer folds in, in one commit",
        ((f"{STATE}:expel", "return leave(state, farmer)", "return state"),),
        weather={"kills": 0.002},
    ),
    Mutation(
        "a farmer changes others under its own number",
        "it carries by: the farmer and the number of its commit",
        ((f"{LEDGER}.apply", "self._also", "self.me"),),
        weather={"kills": 0.002, "lost": 0.05},
    ),
    Mutation(
        "a farmer that left is taken for expelled",
        "Who won is read from the ledger",
        ((f"{LEDGER}._change", "and leave and self._all_counted(state):", "and False:"),),
        weather=LOSSY,
    ),
    # --- transitions, by both machines -------------------------------------------------------------
    Mutation(
        "a claim does not advance",
        "Claim advances next by a batch and adds it to the farmer's claims",
        ((f"{STATE}:claim", "next=segment.next + take", "next=segment.next"),),
        "transitions",
    ),
    Mutation(
        "the list is taken before what came back",
        "takes from returned first",
        (
            (
                f"{STATE}:claim",
                "_take_returned(state.returned, want, room)",
                "_take_returned(state.returned, max(0, want - sum(one.tasks - one.next for one in state.segments)), room)",
            ),
        ),
        "transitions",
    ),
    Mutation(
        "what is given back is nowhere",
        "One commit settles what ended and returns the rest",
        ((f"{STATE}:settle", "returned=_returned(state.returned, _back(state, what))", "returned=state.returned"),),
        "transitions",
    ),
    Mutation(
        "what a dead farmer held is nowhere",
        "Expel: the commit counts ..., returns the rest",
        ((f"{STATE}:expel", "returned=_returned(state.returned, back)", "returned=state.returned"),),
        "transitions",
    ),
    Mutation(
        "a task is given out again as the same attempt",
        "attempt rises whenever a task is given out again",
        (("model:Interval.again", "attempt=self.attempt + 1", "attempt=self.attempt"),),
        "transitions",
    ),
    Mutation(
        "all that a dead farmer held died with it",
        "deaths counts only farmers that died while the task ran",
        ((f"{STATE}:expel", "ran = [one for claimed in rest for one in _common(claimed, died)]", "ran = list(rest)"),),
        "transitions",
    ),
    Mutation(
        "a farmer settles what it does not hold",
        "one commit settles a batch that it holds",
        ((f"{STATE}:settle", "if counted(claims) + counted(told) != counted(held):", "if False:"),),
        "transitions",
    ),
    Mutation(
        "an old attempt is settled for the one that is held",
        "one commit settles a batch that it holds",
        (
            ("model:without", "gone.setdefault((one.segment, one.attempt), [])", "gone.setdefault(one.segment, [])"),
            ("model:without", "gone.get((one.segment, one.attempt), ())", "gone.get(one.segment, ())"),
        ),
        "transitions",
    ),
    Mutation(
        "finished tasks are not counted",
        "the revision carries the sums",
        ((f"{STATE}:settle", "finished=state.finished + what.finished", "finished=state.finished"),),
        "transitions",
    ),
    Mutation(
        "a journal that was given up does not count any more",
        "departed: how much of its result file counts",
        ((f"{STATE}:settle", "if what.journal != entry.journal and entry.bytes:", "if False:"),),
        "transitions",
    ),
    Mutation(
        "a farmer leaves with what it holds",
        "a farmer leaves when it holds nothing",
        ((f"{STATE}:leave", "if entry.claims:", "if False:"),),
        "transitions",
    ),
    Mutation(
        "the length of a farmer that left is forgotten",
        "departed: freezes that length",
        (
            (
                f"{STATE}:leave",
                "{**state.departed, entry.journal: entry.bytes} if entry.bytes else state.departed",
                "state.departed",
            ),
        ),
        "transitions",
    ),
    Mutation(
        "a segment is taken in twice",
        "growth: a list has more tasks at its end",
        ((f"{STATE}:grow", "if segment.first != state.tasks:", "if False:"),),
        "transitions",
    ),
    Mutation(
        "retried tasks stay counted",
        "retry: recorded tasks are unprocessed again",
        ((f"{STATE}:retry", "failed=state.failed - failed", "failed=state.failed"),),
        "transitions",
    ),
    Mutation(
        "closed journals are not summed",
        "closed bytes are what departed has forgotten",
        (
            (
                f"{STATE}:turn",
                "closed_bytes=state.closed_bytes + sum(closed.values())",
                "closed_bytes=state.closed_bytes",
            ),
        ),
        "transitions",
    ),
)
