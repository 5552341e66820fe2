"""`runners`: what -r can name."""

from __future__ import annotations

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.definitions import show_definitions
from taskfarmer.cli.options import config_option, verbose_option


@click.command(
    cls=Verb,
    name="runners",
    short_help="Show what -r/--runner can name.",
    epilog="""\b
Examples:
  taskfarmer runners
  taskfarmer runners --config my.ini

\b
A definition in an INI file:
  [name]
  Runner = package.module.Class
  key = value for its constructor

INI files are looked for in this order, and the first definition of a name counts: --config FILE, the directory
TASKFARMER_CONFIG_DIR, the current directory, for a farmer the folder of its task list, ~/.pytaskfarmer,
/etc/pytaskfarmer.
""",
)
@config_option
@verbose_option
def command(config: str | None) -> int:
    """Show what -r/--runner can name: where each runner is defined, and what is wrong with one that is not usable."""
    return show_definitions("runner", config)
