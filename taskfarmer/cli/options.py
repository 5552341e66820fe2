"""Options and arguments that several verbs share, and a function that opens the farm that they name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from taskfarmer.cli.arguments import BareOption
from taskfarmer.cli.types import Name, Processes
from taskfarmer.errors import NotAFarm
from taskfarmer.storage.layout import Workdir

if TYPE_CHECKING:
    from taskfarmer.ledger.farmfile import Farm

workdir_argument = click.argument("workdir", type=Name(only_folders=True), metavar="WORKDIR")
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, help="Print a traceback for unexpected errors."
)
config_option = click.option(
    "--config", type=Name(), metavar="FILE", help="INI file with runners and handlers, searched first."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with a schema_version.")


def proc_option(numbers: Processes, help: str, **more: Any) -> Callable[[Any], Any]:
    """Return the option for the number of concurrent tasks."""
    names = ("-n", "--proc", "-j", "--jobs", "slots")
    return click.option(*names, cls=BareOption, bare="auto", type=numbers, metavar="N", help=help, **more)


def open_farm(path: str, change: bool = False) -> tuple[Workdir, Farm]:
    """Open the farm in a work directory for reading or, with `change`, for writing.

    NotAFarm if the directory contains no farm, or with `change` none that this user may change.
    """
    # imported late: --version and --help do not need the ledger
    from taskfarmer.farm import groups, trust
    from taskfarmer.ledger.farmfile import require

    if os.path.isfile(path) and os.path.isdir(path + "_workdir"):
        raise NotAFarm(f"{path} is a file; the work directory of this task list is {path}_workdir")
    workdir = Workdir.at(path)
    if change:
        trust.refuse_strangers(workdir)
    farm = require(workdir)
    found = workdir._replace(logs_dir=farm.logs, shared=farm.shared_group)
    if change and farm.shared_group:
        groups.refuse_outsiders(found)
    return found, farm
