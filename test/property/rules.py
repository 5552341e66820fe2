"""The rules of the design, and for each a product that breaks it: the original text and its replacement."""

from __future__ import annotations

from mutations import Mutation

STALE = {"stale": 5.0, "locks": "none"}
LOSSY = {"lost": 0.1, "stale": 1.0, "locks": "none"}
SLEEPY = {"pauses": 0.003, "stale": 0.5, "kills": 0.001}
GUSTY = {"refused": 0.02, "kills": 0.001}

COMMITS, LEDGER, STATE = "ledger.commits:Commits", "ledger.ledger:Ledger", "ledger.state"

OF_THE_LEDGER = (
    # --- the commit -------------------------------------------------------------------------------
    Mutation(
        "a revision older than one that was seen is accepted",
        "Read the newest revision N ... never accept one older than was seen before",
        ((f"{COMMITS}._find_newest", "state = self.last_seen", "state = None"),),
        weather={"stale": 20.0, "locks": "none"},
    ),
    Mutation(
        "the file is linked before its bytes are on the disk",
        "Write it to a fresh file in ledger/<epoch>/tmp/, fsync, close",
        (("storage.durable:prepare", "os.fsync(fd)", "pass"),),
    ),
    Mutation(
        "the prepared name stays while it is read who won",
        "Unlink the prepared name: from here on the outcome cannot change",
        (("storage.durable:publish", "os.unlink(prepared)", "pass"),),
        weather={"late": 0.2, "locks": "none"},
    ),
    Mutation(
        "the reply of link is believed",
        "Who won is read from the ledger, never from the reply: NFS can lose one",
        (
            (f"{COMMITS}._read_winner", "if found.by == following.by:", "if answer is None:"),
            (f"{COMMITS}.commit", "if state.by == (by, seq) or (mine is not None and mine.seq == seq):", "if False:"),
        ),
        weather=LOSSY,
    ),
    Mutation(
        "an earlier try of the same commit is not recognized",
        "Who won is read from the ledger (by of revision N+1, or of our entry in the newest state)",
        ((f"{COMMITS}.commit", "if state.by == (by, seq) or (mine is not None and mine.seq == seq):", "if False:"),),
        weather=LOSSY,
    ),
    Mutation(
        "what was meant to be written is taken for what was written",
        "Who won is read from the ledger: what it holds is known from the committed state alone",
        ((f"{COMMITS}._read_winner", "return found\n", "return following\n"),),
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
        ((f"{COMMITS}._read_winner", "if answer is None and found.by != following.by:", "if False:"),),
        weather={"lying": 0.5, "locks": "none"},
    ),
    Mutation(
        "a damaged revision is passed over",
        "A damaged revision is an error that names the file, never skipped",
        (
            (
                f"{COMMITS}._load",
                "except (FileNotFoundError, NotADirectoryError):",
                "except (FileNotFoundError, NotADirectoryError, Damaged):",
            ),
        ),
    ),
    Mutation(
        "the farm's id is not compared",
        "A farmer of a farm that was removed and made anew ends its tasks, writes nothing, exits non-zero",
        (
            (f"{COMMITS}._from_listing", "if state is not None and state.farm == self.farm:", "if state is not None:"),
            (f"{COMMITS}._from_hint", "if found is not None and found.farm == self.farm", "if found is not None"),
            (f"{COMMITS}.check_farm", 'if document is None or document.get("farm") != self.farm:', "if False:"),
        ),
        weather={"pauses": 0.001, "locks": "local"},
    ),
    Mutation(
        "a commit that failed is taken for one that did not land",
        "never believed: NFS can lose a reply, and show what was",
        ((f"{LEDGER}._finish_previous", "if not self._has_landed(state) and self.commits.uncertain:", "if False:"),),
        weather=LOSSY,
    ),
    Mutation(
        "the name of a farm is not brought to the disk",
        "a farm that somebody works in is there after a power failure",
        ((f"{LEDGER}.exchange", "self._sync_farm()", "pass"),),
        weather={"refused": 0.05},
    ),
    # --- epochs -----------------------------------------------------------------------------------
    Mutation(
        "a fresh epoch is named before it is durable",
        "the committer makes the next epoch's directory, complete and durable, and its revision names it",
        (("storage.durable:make_directory", "sync_directory(os.path.dirname(path))", "pass"),),
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
                "        durable.unlink_quietly(os.path.join(workdir.epoch(name), entry))\n",
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
        (("storage.durable:Journal.append", "os.fsync(self._fd)", "pass"),),
    ),
    Mutation(
        "a failed fsync is tried again",
        "a failed fsync is never tried again on the same file",
        (
            (
                "storage.durable:Journal.append",
                "        os.fsync(self._fd)\n",
                "        try:\n            os.fsync(self._fd)\n"
                "        except OSError:\n            os.fsync(self._fd)\n",
            ),
        ),
        weather=GUSTY,
    ),
    Mutation(
        "a journal that failed is written on",
        "a journal that failed once is left as it is",
        (
            ("storage.durable:Journal.append", "self.failed = True", "pass"),
            (f"{LEDGER}._write_journal", "self._journal.failed = True", "pass"),
        ),
        weather=GUSTY,
    ),
    Mutation(
        "what does not count yet is not written into the fresh journal",
        "everything that does not count yet is written again into a fresh one",
        ((f"{LEDGER}._write_journal", "self._written + lines, []", "lines, []"),),
        weather=GUSTY,
    ),
    Mutation(
        "a dead farmer's journal is counted as it is seen",
        "It fsyncs that file first, so that what it counts stays",
        (("ledger.results:uncounted_results", "durable.sync_file(path)", "pass"),),
        weather={"kills": 0.002},
    ),
    Mutation(
        "damaged lines of a dead farmer are skipped",
        "the commit counts the unbroken run of whole, valid lines of its result file",
        (
            (
                "ledger.results:_unbroken",
                "            break\n        if words[5]",
                "            size += len(line)\n            continue\n        if words[5]",
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
                "ledger.results:counted_journals",
                "size = wanted[journal] if journal in wanted",
                "size = len(durable.read(os.path.join(workdir.results, name))) if journal in wanted",
            ),
        ),
        weather={"kills": 0.002, "pauses": 0.002},
    ),
    Mutation(
        "bytes that cannot be seen are done without",
        "must see exactly the bytes that the state counts of every one of them",
        (("ledger.results:_all_journals", "if total == state.journaled:", "if True:"),),
        weather=STALE,
    ),
    Mutation(
        "retry believes what it sees of results",
        "their sum must equal the state's counters; else the view is stale",
        (
            ("ledger.results:_all_journals", "if total == state.journaled:", "if True:"),
            ("ledger.results:_exactly", "if there >= size:", "if True:"),
            ("ledger.results:_exactly", "if done == size:", "if True:"),
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
        ((f"{LEDGER}.apply", "self._other_name", "self.me"),),
        weather={"kills": 0.002, "lost": 0.05},
    ),
    Mutation(
        "a farmer that left is taken for expelled",
        "Who won is read from the ledger",
        ((f"{LEDGER}._change", "and leave and self._all_counted(state):", "and False:"),),
        weather=LOSSY,
    ),
)
