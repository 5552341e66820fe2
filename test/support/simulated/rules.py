"""The rules of the design, and for each a product that breaks it: the original text and its replacement."""

from __future__ import annotations

from support.simulated.mutations import Mutation

STALE = {"stale": 5.0, "locks": "none"}
LOSSY = {"lost": 0.1, "stale": 1.0, "locks": "none"}
SLEEPY = {"pauses": 0.003, "stale": 0.5, "kills": 0.001}
GUSTY = {"refused": 0.02, "kills": 0.001}

COMMITS, LEDGER, STATE = "ledger.commits:Commits", "ledger.ledger:Ledger", "ledger.state"

OF_THE_LEDGER = (
    # --- the commit -------------------------------------------------------------------------------
    Mutation(
        "a revision older than one that was seen is accepted",
        "Read the newest revision N; never accept one older than a revision seen before",
        ((f"{COMMITS}._find_newest", "state = self.last_seen", "state = None"),),
        faults={"stale": 20.0, "locks": "none"},
    ),
    Mutation(
        "the file is linked before its bytes are on the disk",
        "Write it to a new file in ledger/<epoch>/tmp/, fsync, close",
        (("storage.durable:prepare", "os.fsync(fd)", "pass"),),
    ),
    Mutation(
        "the prepared name is kept while the result of the commit is read",
        "Unlink the prepared name: from now on the result cannot change",
        (("storage.durable:publish", "os.unlink(prepared)", "pass"),),
        faults={"late": 0.2, "locks": "none"},
    ),
    Mutation(
        "the reply of link is trusted",
        "The ledger alone shows which commit won, never the reply: NFS can lose one",
        (
            (f"{COMMITS}._read_winner", "if found.by == following.by:", "if answer is None:"),
            (f"{COMMITS}.commit", "if state.by == (by, seq) or (mine is not None and mine.seq == seq):", "if False:"),
        ),
        faults=LOSSY,
    ),
    Mutation(
        "an earlier attempt at the same commit is not recognized",
        "The ledger alone shows which commit won (`by` in revision N+1, or in our entry in the newest state)",
        ((f"{COMMITS}.commit", "if state.by == (by, seq) or (mine is not None and mine.seq == seq):", "if False:"),),
        faults=LOSSY,
    ),
    Mutation(
        "the intended state is mistaken for the committed one",
        "The ledger alone shows which commit won: a farmer knows its claims from the committed state",
        ((f"{COMMITS}._read_winner", "return found\n", "return following\n"),),
        faults=LOSSY,
    ),
    Mutation(
        "the directory is not synced after a commit",
        "fsync the epoch's directory. Only then may a claimed task start",
        ((f"{COMMITS}.make_durable", "durable.sync_directory(self.workdir.epoch(epoch))", "pass"),),
    ),
    Mutation(
        "a commit with a lost reply counts as lost",
        "ENOENT or ESTALE at link does not mean lost: read again from scratch",
        ((f"{COMMITS}._try", "if won is False:", "if won is not True:"),),
        faults=LOSSY,
    ),
    Mutation(
        "a fork is not noticed",
        "a contradiction between the reply of link and the ledger is a fork, and fatal",
        ((f"{COMMITS}._read_winner", "if answer is None and found.by != following.by:", "if False:"),),
        faults={"lying": 0.5, "locks": "none"},
    ),
    Mutation(
        "a corrupt revision is skipped",
        "A corrupt revision is an error that names the file; it is never skipped",
        (
            (
                f"{COMMITS}._load",
                "except (FileNotFoundError, NotADirectoryError):",
                "except (FileNotFoundError, NotADirectoryError, Damaged):",
            ),
        ),
    ),
    Mutation(
        "the farm's ID is not compared",
        "A farmer of a farm that was removed and recreated stops its tasks, writes nothing, exits non-zero",
        (
            (f"{COMMITS}._from_listing", "if state is not None and state.farm == self.farm:", "if state is not None:"),
            (f"{COMMITS}._from_hint", "if found is not None and found.farm == self.farm", "if found is not None"),
            (f"{COMMITS}.check_farm", 'if document is None or document.get("farm") != self.farm:', "if False:"),
        ),
        faults={"pauses": 0.001, "locks": "local"},
    ),
    Mutation(
        "a failed commit counts as not made",
        "replies are not trusted: NFS can lose a reply, and show old contents",
        ((f"{LEDGER}._finish_previous", "if not self._has_landed(state) and self.commits.uncertain:", "if False:"),),
        faults=LOSSY,
    ),
    Mutation(
        "the name of a farm is not synced",
        "a farm with a working farmer exists after a power failure",
        ((f"{LEDGER}.exchange", "self._sync_farm()", "pass"),),
        faults={"refused": 0.05},
    ),
    # --- epochs -----------------------------------------------------------------------------------
    Mutation(
        "a new epoch is named before it is durable",
        "the commit creates the next epoch's directory, complete and durable, and its revision names it",
        (("storage.durable:make_directory", "sync_directory(os.path.dirname(path))", "pass"),),
    ),
    Mutation(
        "an epoch starts before the end of the previous one is durable",
        "fsync the epoch's directory: every state that a farmer builds on is on the disk",
        ((f"{COMMITS}._try", "self.make_durable(state)", "pass"),),
        faults={"kills": 0.003, "locks": "none", "refused": 0.02},
    ),
    Mutation(
        "an epoch is removed as soon as it ends",
        "Two epochs later the old one is removed",
        (("ledger.epochs:sweep", "after(current) - 2", "after(current) - 1"),),
    ),
    Mutation(
        "tmp/ is removed last",
        "first its tmp/ (so that a farmer that slept has no file to link), then its names",
        (
            (
                "ledger.epochs:remove",
                "    prepared = workdir.prepared(name)\n",
                "    prepared = workdir.prepared(name)\n"
                "    for entry in sorted(filter(str.isdigit, os.listdir(workdir.epoch(name))), key=int):\n"
                "        durable.unlink_quietly(os.path.join(workdir.epoch(name), entry))\n",
            ),
        ),
        faults={"pauses": 0.01, "locks": "none", "kills": 0.001},
    ),
    Mutation(
        "names of an epoch are removed in descending order",
        "then its names, ascending, then itself",
        (("ledger.epochs:remove", "key=int)", "key=int, reverse=True)"),),
    ),
    Mutation(
        "a sweeper that slept removes the epochs of another farm",
        "A deleted farm: a farmer of it writes nothing",
        (("ledger.epochs:_is_of", 'return document is not None and document.get("farm") == farm', "return True"),),
        faults={"pauses": 0.02, "locks": "local"},
    ),
    Mutation(
        "lengths are dropped before they are in the names",
        "Lengths of departed farmers move into the names of their result files before the state drops them",
        (("ledger.epochs:close_journals", "os.rename(workdir.journal(name), target)", "pass"),),
    ),
    Mutation(
        "the names of closed journals are not durable",
        "Lengths of departed farmers move into the names of their result files before the state drops them",
        (("ledger.epochs:close_journals", "durable.sync_directory(workdir.results)", "pass"),),
    ),
    # --- results ----------------------------------------------------------------------------------
    Mutation(
        "results count before they are on the disk",
        "appends a line as each task ends, and fsyncs the file before the commit that settles them",
        (("storage.durable:Journal.append", "os.fsync(self._fd)", "pass"),),
    ),
    Mutation(
        "a failed fsync is retried",
        "a failed fsync is never retried on the same file",
        (
            (
                "storage.durable:Journal.append",
                "        os.fsync(self._fd)\n",
                "        try:\n            os.fsync(self._fd)\n"
                "        except OSError:\n            os.fsync(self._fd)\n",
            ),
        ),
        faults=GUSTY,
    ),
    Mutation(
        "a farmer continues to write to a failed journal",
        "a journal that failed once is not changed any more",
        (
            ("storage.durable:Journal.append", "self.failed = True", "pass"),
            (f"{LEDGER}._write_journal", "self._journal.failed = True", "pass"),
        ),
        faults=GUSTY,
    ),
    Mutation(
        "lines that do not count yet are not copied to the new journal",
        "all lines that do not count yet are written again to a new one",
        ((f"{LEDGER}._write_journal", "self._written + lines, []", "lines, []"),),
        faults=GUSTY,
    ),
    Mutation(
        "a dead farmer's journal is counted without a sync",
        "The commit first syncs that file, so that the counted lines are durable",
        (("ledger.results:uncounted_results", "durable.sync_file(path)", "pass"),),
        faults={"kills": 0.002},
    ),
    Mutation(
        "corrupt lines of a dead farmer are skipped",
        "the commit counts the unbroken run of complete, valid lines of its result file",
        (
            (
                "ledger.results:_unbroken",
                "            break\n        if words[5]",
                "            size += len(line)\n            continue\n        if words[5]",
            ),
        ),
        faults={"kills": 0.003, "refused": 0.02},
    ),
    Mutation(
        "lines count even if the dead farmer does not hold their tasks",
        "valid lines of its result file for tasks that it has claimed",
        (
            (
                "ledger.results:_unbroken",
                "            if one is None:\n                break\n            done.append(one)",
                "            if one is not None:\n                done.append(one)",
            ),
        ),
        faults={"kills": 0.003},
    ),
    Mutation(
        "all of a departed farmer's journal counts",
        "and freezes that length. Lines that are appended later do not count",
        (
            (
                "ledger.results:counted_journals",
                "size = wanted[journal] if journal in wanted",
                "size = len(durable.read(os.path.join(workdir.results, name))) if journal in wanted",
            ),
        ),
        faults={"kills": 0.002, "pauses": 0.002},
    ),
    Mutation(
        "missing bytes of a journal are ignored",
        "must see exactly the counted bytes of every journal",
        (("ledger.results:_all_journals", "if total == state.journaled:", "if True:"),),
        faults=STALE,
    ),
    Mutation(
        "retry trusts the visible part of the results",
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
        faults=STALE,
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
        faults=SLEEPY,
    ),
    Mutation(
        "a farewell note is processed more than once",
        "the next commit of another farmer processes a farewell note, in one commit",
        ((f"{STATE}:expel", "return leave(state, farmer)", "return state"),),
        faults={"kills": 0.002},
    ),
    Mutation(
        "a farmer changes others under the number of its commits",
        "it contains `by`: the farmer and the number of its commit",
        ((f"{LEDGER}.apply", "self._other_name", "self.me"),),
        faults={"kills": 0.002, "lost": 0.05},
    ),
    Mutation(
        "a farmer that left is mistaken for expelled",
        "The ledger alone shows which commit won",
        ((f"{LEDGER}._change", "and leave and self._all_counted(state):", "and False:"),),
        faults=LOSSY,
    ),
)
