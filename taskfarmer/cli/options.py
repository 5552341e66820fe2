"""Options and arguments that several verbs have, and the farm that they name."""

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
    "-v", "--verbose", is_flag=True, expose_value=False, help="Show where an unexpected error comes from."
)
config_option = click.option(
    "--config", type=Name(), metavar="FILE", help="An INI file with runners and handlers, read before all others."
)
json_option = click.option("--json", "as_json", is_flag=True, help="As a JSON document, with a schema_version.")


def proc_option(numbers: Processes, help: str, **more: Any) -> Callable[[Any], Any]:
    """How many tasks at a time."""
    names = ("-n", "--proc", "-j", "--jobs", "slots")
    return click.option(*names, cls=BareOption, bare="auto", type=numbers, metavar="N", help=help, **more)


def open_farm(path: str, change: bool = False) -> tuple[Workdir, Farm]:
    """The farm in a work directory, for reading or for a `change`; NotAFarm where there is none, or none to change."""
    # not at the top: what only shows its version or help loads no ledger
    from taskfarmer.farm import groups, trust
    from taskfarmer.ledger.farmfile import require

    if os.path.isfile(path) and os.path.isdir(path + "_workdir"):
        raise NotAFarm(f"{path}: is a file; the work directory of this task list is {path}_workdir")
    workdir = Workdir.at(path)
    if change:
        trust.refuse_strangers(workdir)
    farm = require(workdir)
    found = workdir._replace(logs_dir=farm.logs, shared=farm.shared_group)
    if change and farm.shared_group:
        groups.refuse_outsiders(found)
    return found, farm
