"""`python -m benchmarks NAME [--json FILE]`: run one benchmark, print its table."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import farmers, idle, importing, ledger, measure, memory, revision, scale, spawn, startup, tail, workers

BENCHMARKS = {
    "spawn": spawn,
    "ledger": ledger,
    "farmers": farmers,
    "startup": startup,
    "memory": memory,
    "idle": idle,
    "workers": workers,
    "import": importing,
    "revision": revision,
    "scale": scale,
    "tail": tail,
}


def main() -> None:
    summaries = [f"  {name:10}{(module.__doc__ or '').partition(chr(10))[0]}" for name, module in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure taskfarmer side by side with something else.\n\n" + "\n".join(summaries),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", choices=BENCHMARKS, help="one of the above")
    parser.add_argument("-N", dest="number", type=int, help="how many or how long; the default is judged")
    parser.add_argument("--rounds", metavar="N", type=int, default=measure.ROUNDS, help="turns of each (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--dir", metavar="DIR", help="where to make temporary directories (default: $TMPDIR or /tmp)")
    arguments = parser.parse_args()
    module = BENCHMARKS[arguments.name]
    with measure.scratch(arguments.dir) as folder:
        title, figures = module.run(folder, arguments.number or module.NUMBER, arguments.rounds)
    print(measure.table(title, figures))
    if arguments.json:
        Path(arguments.json).write_text(measure.document(arguments.name, title, figures), encoding="utf-8")


if __name__ == "__main__":
    main()
