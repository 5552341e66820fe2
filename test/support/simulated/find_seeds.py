"""Find a seed for each broken rule, and keep the seeds and the table of docs/reliability.md up to date.

A change of the product changes the seeds that find a broken rule. Run this afterwards:

    PYTHONPATH=.:test python -m support.simulated.find_seeds  # keep the seeds that still work, search for the others
    PYTHONPATH=.:test python -m support.simulated.find_seeds --all  # search for the first seed of every rule
    PYTHONPATH=.:test python -m support.simulated.find_seeds --table  # only write the table again
    PYTHONPATH=.:test python -m support.simulated.find_seeds --check  # only compare the table

It writes `seeds.json` and the table, prints each change, and exits with 1 if a rule has no seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from support.simulated.farmyard import history
from support.simulated.mutations import SEEDS_FILE, Mutation
from support.simulated.rules import OF_THE_LEDGER
from support.simulated.rules_of_states import OF_STATES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- This table is written by `python -m support.simulated.find_seeds`. -->\n"
END = "<!-- End of the table. -->\n"
LIMIT = 20_000
"""The number of seeds to try for a rule."""
CHUNK = 20


def first_found(mutation: Mutation, seeds: Iterable[int]) -> int | None:
    """The first of the seeds whose history fails with the broken rule."""
    with mutation.made():
        for seed in seeds:
            try:
                history(seed, mutation.faults_of(seed))
            except Exception:
                return seed
    return None


# --- the table ----------------------------------------------------------------------------------


def table() -> str:
    rows = ["| what is broken | rule | found by |\n", "|---|---|---|\n"]
    for mutation in (*OF_THE_LEDGER, *OF_STATES):
        rows.append(f"| {mutation.name} | {mutation.rule} | {_found_by(mutation)} |\n")
    return "".join(rows)


def _found_by(mutation: Mutation) -> str:
    if mutation.machine == "transitions":
        return "transitions"
    faults = ", ".join(f"{name} {value}" for name, value in mutation.faults.items())
    return f"ledger, seed {mutation.seed}" + (f" ({faults})" if faults else "")


def with_table(page: str) -> str:
    """The text of docs/reliability.md with an updated table."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{PAGE}: the markers of the table are missing"
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


# --- the search ---------------------------------------------------------------------------------


def _found_in(place: int, start: int, seeds: int) -> int | None:
    """Run in a process of the pool, which gets a mutation's position in the list."""
    return first_found(OF_THE_LEDGER[place], range(start, start + seeds))


def _search(pool: ProcessPoolExecutor, place: int, jobs: int) -> int | None:
    """The first seed that finds a rule. Several chunks of seeds are searched at once, and checked in their order."""
    starts = iter(range(0, LIMIT, CHUNK))
    running: list[Future[int | None]] = []
    try:
        while True:
            fresh = islice(starts, 2 * jobs - len(running))
            running += (pool.submit(_found_in, place, start, CHUNK) for start in fresh)
            if not running:
                return None
            found = running.pop(0).result()
            if found is not None:
                return found
    finally:
        for future in running:
            future.cancel()


def find(every: bool, jobs: int) -> bool:
    """Write the seeds; whether each rule has one."""
    seeds = json.loads(SEEDS_FILE.read_text(encoding="utf-8"))
    fine = True
    with ProcessPoolExecutor(jobs) as pool:
        kept = [
            None if every else pool.submit(_found_in, place, seeds.get(mutation.name, 0), 1)
            for place, mutation in enumerate(OF_THE_LEDGER)
        ]
        for place, mutation in enumerate(OF_THE_LEDGER):
            before, keeps = seeds.get(mutation.name), kept[place]
            try:
                found = keeps.result() if keeps is not None else None
                seed = found if found is not None else _search(pool, place, jobs)
                if seed is None:
                    raise LookupError(f"not found in {LIMIT} seeds")
                history(seed, mutation.faults_of(seed))
            except Exception as error:
                # the text of the rule has moved, no seed finds it, or the product fails without the broken rule
                print(f"{mutation.name}: {type(error).__name__}: {error}", flush=True)
                fine = False
                continue
            if seed != before:
                print(f"{mutation.name}: seed {before} -> {seed}", flush=True)
            seeds[mutation.name] = seed
    names = [mutation.name for mutation in OF_THE_LEDGER]
    ordered = {name: seeds[name] for name in names if name in seeds}
    SEEDS_FILE.write_text(json.dumps(ordered, indent=4) + "\n", encoding="utf-8")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--all", action="store_true", help="search for the first seed of every rule")
    only.add_argument("--table", action="store_true", help="only write the table")
    only.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the table is not up to date")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="processes that search at once (default: 2)")
    given = parser.parse_args()
    fine = given.table or given.check or find(given.all, given.jobs)
    before = PAGE.read_text(encoding="utf-8")
    after = with_table(before)
    if given.check:
        return int(after != before)
    if after != before:
        PAGE.write_text(after, encoding="utf-8")
        print(f"wrote the table of {PAGE.relative_to(ROOT)}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
