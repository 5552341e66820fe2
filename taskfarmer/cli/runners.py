"""`runners`: list the runners that -r can name."""

from __future__ import annotations

import click

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.definitions import show_definitions
from taskfarmer.cli.options import config_option, verbose_option


@click.command(
    cls=Verb,
    name="runners",
    short_help="List the runners for -r/--runner.",
    epilog="""\b
Examples:
  taskfarmer runners
  taskfarmer runners --config my.ini

\b
A definition in an INI file:
  [name]
  Runner = package.module.Class
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
    """List the runners that -r/--runner can name, where each is defined, and why one is not usable."""
    return show_definitions("runner", config)
