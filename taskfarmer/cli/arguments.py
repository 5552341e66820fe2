"""Arguments as old scripts write them, rewritten into what click reads. The only place that does so.

PyTaskFarmer read its arguments with argparse. What click would refuse or misread of that:

* `-n` without a number, at the end or before another option (`BareOption`)
* `-v True`, `-vTrue`, `--verbose=1` (`WordedFlag`); a task list of such a name is written `./True`
* `--work DIR`: an option's name cut short, where only one can be meant
* `-w=DIR`: a short option with an equals sign
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import click

from taskfarmer import signals

_WORDS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


OLD_SHORT = {"--log": "--logs-dir"}
"""What PyTaskFarmer took for its --logDir, and what would be ambiguous now."""


class BareOption(click.Option):
    """An option that stands for `bare` where it has no value."""

    def __init__(self, *args: Any, bare: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bare = bare


class WordedFlag(click.Option):
    """A flag that may be followed by a word for true or false."""


class Rewriter:
    """Rewrites one command line for a command with these parameters; see `rewrite`."""

    def __init__(self, params: Iterable[click.Parameter], lenient: bool = False) -> None:
        self._options: dict[str, click.Option] = {}
        for param in params:
            if isinstance(param, click.Option):
                self._options.update(dict.fromkeys((*param.opts, *param.secondary_opts), param))
        self._lenient = lenient
        self._rest: deque[str] = deque()
        self._written: list[str] = []
        self._flags: dict[str, bool] = {}

    def rewrite(self, args: Sequence[str]) -> list[str]:
        """The same arguments with full names of options, and every value joined to that of its own.

        click would look a short name up among the full ones first, and for that import what proposes similar names.

        UsageError for a name that is cut too short, unless `lenient`; what is unknown is left as it is,
        for click to refuse.
        """
        self._rest.extend(args)
        while self._rest:
            word = self._rest.popleft()
            if word == "--":
                self._written += [word, *self._rest]
                break
            if word.startswith("--"):
                self._long(word)
            elif word.startswith("-") and word != "-":
                self._short(word)
            else:
                self._written.append(word)
        return [name for name, wanted in self._flags.items() if wanted] + self._written

    def _long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        name = self._full_name(name)
        option = self._options.get(name)
        if option is None:
            self._written.append(word)
        elif option.is_flag or option.count:
            self._flag(option, name, value if equals else None)
        else:
            self._valued(option, name, value if equals else None)

    def _full_name(self, name: str) -> str:
        if name in self._options:
            return name
        if OLD_SHORT.get(name) in self._options:
            return OLD_SHORT[name]
        fitting = [full for full, one in self._options.items() if full.startswith(name) and not one.hidden]
        if fitting and len({id(self._options[full]) for full in fitting}) > 1 and not self._lenient:
            raise click.UsageError(f"{name} may be {' or '.join(sorted(fitting))}: write the name in full")
        return fitting[0] if fitting else name

    def _short(self, word: str) -> None:
        name, tail = word[:2], word[2:]
        option = self._options.get(name)
        if option is None:
            self._written.append(word)
        elif not (option.is_flag or option.count):
            self._valued(option, name, tail.removeprefix("=") if tail else None)
        elif not tail:
            self._flag(option, _long_name(option), None)
        elif isinstance(option, WordedFlag) and tail.removeprefix("=").lower() in _WORDS:
            self._flag(option, name, tail.removeprefix("="))
        else:
            self._flag(option, _long_name(option), None, alone=True)
            self._rest.appendleft("-" + tail)

    def _flag(self, option: click.Option, name: str, value: str | None, alone: bool = False) -> None:
        if not isinstance(option, WordedFlag):
            self._written.append(name if value is None else f"{name}={value}")
            return
        if value is None and not alone and self._rest and self._rest[0].lower() in _WORDS:
            value = self._rest.popleft()
        if value is not None and value.lower() not in _WORDS and not self._lenient:
            raise click.BadParameter(f"{value!r} is neither true nor false", param=option)
        # the last one counts, as in argparse
        self._flags[_long_name(option)] = value is None or _WORDS.get(value.lower(), True)

    def _valued(self, option: click.Option, name: str, value: str | None) -> None:
        if value is None:
            if isinstance(option, BareOption) and (not self._rest or _is_option(self._rest[0])):
                value = option.bare
            elif self._rest:
                value = self._rest.popleft()
        full = name if name.startswith("--") else _long_name(option)
        self._written.append(name if value is None else f"{full}={value}")


def _long_name(option: click.Option) -> str:
    return next(name for name in option.opts if name.startswith("--"))


def _is_option(word: str) -> bool:
    """Whether a word is an option rather than a value; `-4` is a number that is too small."""
    return word.startswith("-") and word != "-" and not re.fullmatch(r"-\d+", word)


_HELP_NAMES = ["-h", "--help"]


def _show_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


class Verb(click.Command):
    """A command with old scripts' arguments, `-h`, and `--verbose` for the traceback of a defect.

    Stop signals are held when a command begins. A verb lets them have their usual effect again before it
    does anything, but for the one that hands them to a farmer (`takes_signals`).
    """

    takes_signals = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {})
        kwargs["context_settings"].setdefault("help_option_names", _HELP_NAMES)
        super().__init__(*args, **kwargs)
        self._help = click.Option(
            _HELP_NAMES,
            is_flag=True,
            expose_value=False,
            is_eager=True,
            help="Show this message and exit.",
            callback=_show_help,
        )

    def get_help_option(self, ctx: click.Context) -> click.Option:
        """Our own: click's looks for a translation of its text, and asks the disk a dozen times."""
        return self._help

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, Rewriter(self.get_params(ctx), ctx.resilient_parsing).rewrite(args))

    def get_help(self, ctx: click.Context) -> str:
        signals.release()
        return super().get_help(ctx)

    def invoke(self, ctx: click.Context) -> Any:
        if not self.takes_signals:
            signals.release()
        return super().invoke(ctx)


class RunVerb(Verb):
    takes_signals = True
