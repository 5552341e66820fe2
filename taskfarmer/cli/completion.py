"""`completion`: print the script that makes a shell complete both commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from taskfarmer.cli.arguments import Verb
from taskfarmer.cli.options import verbose_option
from taskfarmer.cli.program import completion_variable, find_verb, verbs
from taskfarmer.ui.stdout import write_stdout


@click.command(
    cls=Verb,
    name="completion",
    short_help="Print the completion script for your shell.",
    epilog="""\b
Examples:
  eval "$(taskfarmer completion bash)"             in ~/.bashrc
  taskfarmer completion zsh > ~/.taskfarmer.zsh    `source` it after compinit
  taskfarmer completion fish > ~/.config/fish/completions/taskfarmer.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
@verbose_option
def command(shell: str) -> int:
    """Print a script that makes your shell complete `taskfarmer` and `pytaskfarmer.py`."""
    kind = get_completion_class(shell)
    assert kind is not None
    for command, program in ((verbs, "taskfarmer"), (find_verb("run"), "pytaskfarmer.py")):
        write_stdout(kind(command, {}, program, completion_variable(program)).source() + "\n")
    return 0
