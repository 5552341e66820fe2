"""`handlers`: list the handlers that -t can name."""

from __future__ import annotations

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.definitions import show_definitions
from taskfarmer.cli.options import config_option, verbose_option


@click.command(
    cls=Verb,
    name="handlers",
    short_help="List the handlers for -t/--tasklist.",
    epilog="""\b
Examples:
  taskfarmer handlers
  taskfarmer handlers --config my.ini

\b
A definition in an INI file:
  [name]
  TaskList = package.module.Class
  key = value for its constructor

\b
INI files are searched in this order; the first definition of a name wins:
  --config FILE
  the directory $TASKFARMER_CONFIG_DIR
  the current directory
  the folder of the task list (farmers only)
  ~/.pytaskfarmer
  /etc/pytaskfarmer
""",
)
@config_option
@verbose_option
def command(config: str | None) -> int:
    """List the handlers that -t/--tasklist can name, where each is defined, and why one is not usable."""
    return show_definitions("tasklist", config)
