"""`handlers`: what -t can name."""

from __future__ import annotations

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.definitions import show_definitions
from taskfarmer.cli.options import config_option, verbose_option


@click.command(
    cls=Verb,
    name="handlers",
    short_help="Show what -t/--tasklist can name.",
    epilog="""\b
Examples:
  taskfarmer handlers
  taskfarmer handlers --config my.ini

\b
A definition in an INI file:
  [name]
  TaskList = package.module.Class
  key = value for its constructor

INI files are looked for in this order, and the first definition of a name counts: --config FILE, the directory
TASKFARMER_CONFIG_DIR, the current directory, for a farmer the folder of its task list, ~/.pytaskfarmer,
/etc/pytaskfarmer.
""",
)
@config_option
@verbose_option
def command(config: str | None) -> int:
    """Show what -t/--tasklist can name: where each handler is defined, and what is wrong with one not usable."""
    return show_definitions("tasklist", config)
