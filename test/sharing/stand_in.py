import argparse
import sys

from taskfarmer.errors import TaskFarmerError
from taskfarmer.farmer import run
from taskfarmer.settings import Reporter, Settings
from taskfarmer.signals import Signals, hold

hold()
p = argparse.ArgumentParser()
p.add_argument("verb")
p.add_argument("tasklist")
p.add_argument("--proc", type=int, default=8, dest="slots")
p.add_argument("--workdir")
p.add_argument("--lease", type=float)
p.add_argument("--epoch-length", type=int)
p.add_argument("--lock-dir")
p.add_argument("--wait", action="store_true")
p.add_argument("--grace", type=float, default=10.0)
a = vars(p.parse_args())
a.pop("verb")


def say(x):
    print(x, file=sys.stderr, flush=True)


try:
    end = run(Settings(**a), Reporter(say, say, say, say), Signals())
    say(end)
    sys.exit(int(end.status))
except TaskFarmerError as e:
    say(f"error: {e}")
    sys.exit(e.exit_status)
