"""Commands that accept the command lines of old scripts and list their options under headings.

PyTaskFarmer parsed its arguments with argparse. Click would refuse or misread these forms, so `Rewriter`
translates them before click parses the command line:

* `-n` without a number, at the end or before another option (`BareOption`)
* `-v True`, `-vTrue`, `--verbose=1` (`WordedFlag`); write a task list with such a name as `./True`
* `--work DIR`: an abbreviated option, if the abbreviation is unambiguous
* `-w=DIR`: a short option with an equals sign
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from taskfarmer import signals

_TRUTH_WORDS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}

OLD_ABBREVIATIONS = {"--log": "--logs-dir"}
"""`--log` meant --logDir to PyTaskFarmer; as an abbreviation it would be ambiguous now."""

Headings = Mapping[str, Sequence[str]]
"""Headings of a help text, each with its options (`--name`)."""


class BareOption(click.Option):
    """An option that has the value `bare` if the command line gives none."""

    def __init__(self, *args: Any, bare: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bare = bare


class WordedFlag(click.Option):
    """A flag that may be followed by a word such as `True` or `no`."""


class Rewriter:
    """Rewrites one command line for a command with these parameters; see `rewrite`.

    `lenient` accepts ambiguous abbreviations, for shell completion of a line that is still being typed.
    """

    def __init__(self, params: Iterable[click.Parameter], lenient: bool = False) -> None:
        self._options: dict[str, click.Option] = {}
        for param in params:
            if isinstance(param, click.Option):
                self._options.update(dict.fromkeys((*param.opts, *param.secondary_opts), param))
        self._lenient = lenient
        self._pending: deque[str] = deque()
        self._rewritten: list[str] = []
        self._flags: dict[str, bool] = {}

    def rewrite(self, args: Sequence[str]) -> list[str]:
        """Return the arguments in one form: `--name` or `--name=value` with full names.

        UsageError if an abbreviation is ambiguous. Unknown options stay as they are; click refuses them.
        """
        self._pending.extend(args)
        while self._pending:
            word = self._pending.popleft()
            if word == "--":
                self._rewritten += [word, *self._pending]
                break
            if word.startswith("--"):
                self._rewrite_long(word)
            elif word.startswith("-") and word != "-":
                self._rewrite_short(word)
            else:
                self._rewritten.append(word)
        return [name for name, wanted in self._flags.items() if wanted] + self._rewritten

    def _rewrite_long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        name = self._full_name(name)
        option = self._options.get(name)
        if option is None:
            self._rewritten.append(word)
        elif option.is_flag or option.count:
            self._add_flag(option, name, value if equals else None)
        else:
            self._add_value(option, name, value if equals else None)

    def _full_name(self, name: str) -> str:
        if name in self._options:
            return name
        if OLD_ABBREVIATIONS.get(name) in self._options:
            return OLD_ABBREVIATIONS[name]
        matches = [full for full, option in self._options.items() if full.startswith(name) and not option.hidden]
        if len({id(self._options[full]) for full in matches}) > 1 and not self._lenient:
            raise click.UsageError(f"{name} is ambiguous ({', '.join(sorted(matches))}): write the option in full")
        return matches[0] if matches else name

    def _rewrite_short(self, word: str) -> None:
        name, tail = word[:2], word[2:]
        option = self._options.get(name)
        if option is None:
            self._rewritten.append(word)
        elif not (option.is_flag or option.count):
            self._add_value(option, name, tail.removeprefix("=") if tail else None)
        elif not tail:
            self._add_flag(option, _long_name(option), None)
        elif isinstance(option, WordedFlag) and tail.removeprefix("=").lower() in _TRUTH_WORDS:
            self._add_flag(option, name, tail.removeprefix("="))
        else:
            self._add_flag(option, _long_name(option), None, alone=True)
            self._pending.appendleft("-" + tail)

    def _add_flag(self, option: click.Option, name: str, value: str | None, alone: bool = False) -> None:
        if not isinstance(option, WordedFlag):
            self._rewritten.append(name if value is None else f"{name}={value}")
            return
        if value is None and not alone and self._pending and self._pending[0].lower() in _TRUTH_WORDS:
            value = self._pending.popleft()
        if value is not None and value.lower() not in _TRUTH_WORDS and not self._lenient:
            raise click.BadParameter(f"{value!r} is neither true nor false", param=option)
        # the last occurrence wins, as in argparse
        self._flags[_long_name(option)] = value is None or _TRUTH_WORDS.get(value.lower(), True)

    def _add_value(self, option: click.Option, name: str, value: str | None) -> None:
        if value is None:
            if isinstance(option, BareOption) and (not self._pending or _is_option(self._pending[0])):
                value = option.bare
            elif self._pending:
                value = self._pending.popleft()
        full = name if name.startswith("--") else _long_name(option)
        self._rewritten.append(name if value is None else f"{full}={value}")


def _long_name(option: click.Option) -> str:
    return next(name for name in option.opts if name.startswith("--"))


def _is_option(word: str) -> bool:
    """Whether a word is an option and not a value; `-4` is a value, which its option then refuses as too small."""
    return word.startswith("-") and word != "-" and not re.fullmatch(r"-\d+", word)


class Verb(click.Command):
    """A command with `-h` and `--help`, options under headings, and the argument forms of old scripts.

    The program starts with its stop signals blocked. A verb unblocks them before it does any work, unless it
    handles signals itself (`handles_signals`).
    """

    handles_signals = False

    def __init__(self, *args: Any, headings: Headings | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        self.headings = headings or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, Rewriter(self.get_params(ctx), ctx.resilient_parsing).rewrite(args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List each option under the first heading that names it, or else under `Options`."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in self.headings}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                headings = (one for one, names in self.headings.items() if not set(names).isdisjoint(param.opts))
                sections.setdefault(next(headings, "Options"), []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def get_help(self, ctx: click.Context) -> str:
        signals.release()
        return super().get_help(ctx)

    def invoke(self, ctx: click.Context) -> Any:
        if not self.handles_signals:
            signals.release()
        return super().invoke(ctx)


class RunVerb(Verb):
    handles_signals = True
