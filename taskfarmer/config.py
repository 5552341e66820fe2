"""Runners and task list handlers by name: INI files -> checked definitions -> objects.

A section `[name]` with a key `Runner` or `TaskList` defines one; its other keys are keyword arguments of the class.
Files are looked for where `_places` says, and the first definition of a name wins. Since a definition names code to
import, a file that was merely found counts only if nobody else could have written it, and nothing is imported unless
its name is asked for. Whatever is wrong with a definition, or with its file, matters only then too.
"""

from __future__ import annotations

import configparser
import importlib
import inspect
import os
import re
import stat
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from taskfarmer.errors import ConfigError, hit_a_limit, remedy

Kind = Literal["runner", "tasklist"]

KEYS: dict[Kind, str] = {"runner": "Runner", "tasklist": "TaskList"}
NOUNS: dict[Kind, str] = {"runner": "runner", "tasklist": "task list handler"}
METHODS: dict[Kind, tuple[str, ...]] = {"runner": ("run",), "tasklist": ("__len__", "__getitem__")}
BUILT_IN = "built in"

_HEADER = re.compile(r"^\[([^\]\n]+)\]", re.MULTILINE)
_DEFINES = re.compile(r"^(?:Runner|TaskList)\b", re.MULTILINE)


@dataclass(frozen=True)
class Definition:
    """What a name stands for, as it was written; `file` is a path, "built in" or "entry point <distribution>"."""

    kind: Kind
    name: str
    file: str
    class_path: str
    options: dict[str, str] = field(default_factory=dict)


DEFAULTS = (
    Definition("runner", "default", BUILT_IN, "taskfarmer.runners.BasicRunner"),
    Definition("tasklist", "default", BUILT_IN, "taskfarmer.tasks.ListTaskList"),
)


class Section(BaseModel):
    """The shape of a section that defines something."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    class_path: str
    options: dict[str, str]

    @field_validator("class_path")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if "." not in value or not all(part.isidentifier() for part in value.split(".")):
            raise ValueError(f"{value!r} names no class: write package.module.Class")
        return value

    @field_validator("options")
    @classmethod
    def _is_of_one_kind(cls, value: dict[str, str]) -> dict[str, str]:
        if not value.keys().isdisjoint(KEYS.values()):
            raise ValueError("the section has both Runner and TaskList: make two sections of it")
        return value


@dataclass(frozen=True)
class IniFile:
    """An INI file that was read: what it defines or, if it could not be parsed, what is wrong and its names."""

    path: str
    definitions: tuple[Definition, ...] = ()
    sections: frozenset[str] = frozenset()
    fault: str | None = None


class Configuration:
    """All definitions, in the order in which they count. Made by `search`."""

    def __init__(self, files: list[IniFile], warnings: list[str], folders: list[str]) -> None:
        self.files = files
        self.warnings = warnings
        self._folders = folders

    @classmethod
    def search(
        cls,
        config_file: str | None = None,
        *,
        cwd: str = ".",
        environ: Mapping[str, str] | None = None,
        home: str | None = None,
        etc: str = "/etc/pytaskfarmer",
        beside: str | None = None,
    ) -> Configuration:
        """Read every INI file there is, and import nothing.

        `config_file` is what --config names, `beside` the folder of the task list: INI files and modules there and in
        `cwd` are found. ConfigError if a file or folder that was named, not found, cannot be read.
        """
        environ = os.environ if environ is None else environ
        home = os.path.expanduser("~") if home is None else home
        files: list[IniFile] = []
        warnings: list[str] = []
        seen: set[str] = set()
        for path, named in _places(config_file, environ.get("TASKFARMER_CONFIG_DIR"), cwd, beside, home, etc):
            if (real := os.path.realpath(path)) in seen:
                continue
            file, status = _read(path, named)
            reason = None if named else _distrust(path, status)
            if reason is None:
                seen.add(real)
                files.append(file)
            elif file.definitions or file.fault:
                warnings.append(f"{path}: passed over, since {reason}: name it with --config if you trust it")
        return cls(files, warnings, [os.path.abspath(folder) for folder in (beside, cwd) if folder is not None])

    @property
    def faults(self) -> list[str]:
        """What is wrong with files that cannot be parsed: nobody can say what they define."""
        return [file.fault for file in self.files if file.fault]

    def definitions(self) -> list[Definition]:
        """Return everything that is defined, those that another of the same name precedes too."""
        found = [definition for file in self.files for definition in file.definitions]
        return [*DEFAULTS, *found, *_entry_points("runner"), *_entry_points("tasklist")]

    def problem(self, definition: Definition) -> str | None:
        """Return what is wrong with a definition, as one line, or None. Imports its class, but makes no object."""
        if definition.name == "default" and definition.file != BUILT_IN:
            return _error(definition, KEYS[definition.kind], "default is built in: use another name")
        first = next(d for d in self.definitions() if (d.kind, d.name) == (definition.kind, definition.name))
        if first != definition:
            return _error(definition, KEYS[definition.kind], f"{first.file} defines the name first: use another name")
        try:
            self._load(definition)
        except ConfigError as error:
            return str(error)
        return None

    def runner(self, name: str) -> Any:
        """Return a new runner of that name. ConfigError where there is none, or it cannot be made."""
        definition = self._find("runner", name)
        made_of = self._load(definition)
        try:
            return made_of(**definition.options)
        except (Exception, SystemExit) as error:
            fact = f"{definition.class_path} cannot be made: {_cause(error)}: correct the keys of the section"
            raise ConfigError(_error(definition, KEYS["runner"], fact)) from error

    def tasklist_class(self, name: str) -> tuple[type, dict[str, str]]:
        """Return the class of a task list handler and its options, for `made_of(path, workdir, **options)`."""
        definition = self._find("tasklist", name)
        return self._load(definition), definition.options

    def _find(self, kind: Kind, name: str) -> Definition:
        if built_in := next((one for one in DEFAULTS if (one.kind, one.name) == (kind, name)), None):
            return built_in
        for file in self.files:
            if file.fault and name in file.sections:
                raise ConfigError(file.fault)
            for definition in file.definitions:
                if (definition.kind, definition.name) == (kind, name):
                    return definition
        if plug_in := next((one for one in _entry_points(kind) if one.name == name), None):
            return plug_in
        raise ConfigError(self._not_found(kind, name))

    def _not_found(self, kind: Kind, name: str) -> str:
        names = dict.fromkeys(definition.name for definition in self.definitions() if definition.kind == kind)
        near = [f"{f.path}: [{name}] has no key {KEYS[kind]}" for f in self.files if name in f.sections]
        unread = [f.fault for f in self.files if f.fault and not f.sections]
        hints = "".join(f"; {hint}" for hint in [*near, *unread, *self.warnings])
        return (
            f"no {NOUNS[kind]} is named {name!r}{hints}: use one of {', '.join(names)}, "
            f"or define [{name}] with a key {KEYS[kind]} in an INI file"
        )

    def _load(self, definition: Definition) -> type:
        """Return the class of a definition, after it passed every check."""
        key = KEYS[definition.kind]
        try:
            Section(class_path=definition.class_path, options=definition.options)
        except ValidationError as error:
            fact = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise ConfigError(_error(definition, key, fact)) from error
        made_of = self._import(definition)
        _check_keys(definition, made_of)
        return made_of

    def _import(self, definition: Definition) -> type:
        key = KEYS[definition.kind]
        module_name, _, class_name = definition.class_path.rpartition(".")
        self._extend_path()
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # a script without a main guard exits when it is imported
            if isinstance(error, OSError) and hit_a_limit(error):
                raise
            fact = f"module {module_name} cannot be imported: {_cause(error)}: "
            advice = "correct the path, install the module, or put it beside the task list"
            for folder in filter(_is_everybodys, self._folders):
                advice += f"; {folder} is passed over, since everybody may put modules there (chmod o-w)"
            raise ConfigError(_error(definition, key, fact + advice)) from error
        found = getattr(module, class_name, None)
        if not isinstance(found, type):
            fact = f"module {module_name} has no class {class_name}: correct the path"
            raise ConfigError(_error(definition, key, fact))
        missing = [method for method in METHODS[definition.kind] if not callable(getattr(found, method, None))]
        if missing:
            fact = f"{definition.class_path} is no {NOUNS[definition.kind]}, it lacks {', '.join(missing)}: "
            raise ConfigError(_error(definition, key, fact + "name another class"))
        return found

    def _extend_path(self) -> None:
        """Let modules beside the list, and where we were started, be found; for good, as they import others later."""
        for folder in self._folders:
            # not where a stranger may put what an installed module looks for in vain
            if folder not in sys.path and not _is_everybodys(folder):
                sys.path.append(folder)  # never first: a user's file must not replace an installed module
        importlib.invalidate_caches()


def _places(
    config_file: str | None, config_dir: str | None, cwd: str, beside: str | None, home: str, etc: str
) -> Iterator[tuple[str, bool]]:
    """Give the paths of INI files in the order in which they count, and whether they were named rather than found."""
    if config_file is not None:
        yield config_file, True
    if config_dir:
        if not os.path.isdir(config_dir):
            raise ConfigError(f"{config_dir}: is no directory: correct TASKFARMER_CONFIG_DIR, or unset it")
        for folder in (config_dir, f"{config_dir}/runners.d", f"{config_dir}/tasklists.d"):
            for path in _ini_files(folder):
                yield path, True
    folders = [f"{base}{part}" for base in (cwd, beside) if base for part in ("", "/runners.d", "/tasklists.d")]
    folders += [f"{base}{part}" for base in (f"{home}/.pytaskfarmer", etc) for part in ("/runners.d", "/tasklists.d")]
    for folder in folders:
        for path in _ini_files(folder):
            yield path, False


def _ini_files(folder: str) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".ini") and name[0] != ".")
    except OSError as error:
        if hit_a_limit(error):
            raise
        return []
    paths = [os.path.normpath(os.path.join(folder, name)) for name in names]
    # A directory or a pipe of that name is no INI file, and to open a pipe could wait for ever.
    return [path for path in paths if os.path.isfile(path)]


def _distrust(path: str, status: os.stat_result | None) -> str | None:
    """Return why a file that was found may be somebody else's, or None; `status` is that of what was read."""
    try:
        link = os.lstat(path)
        status = status or os.stat(path)
        folder = os.stat(os.path.dirname(path) or ".")
    except OSError as error:
        return f"it cannot be looked at ({error.strerror})"
    if not {status.st_uid, link.st_uid} <= {0, os.geteuid()}:
        return "it belongs to another user"
    if status.st_mode & stat.S_IWOTH:
        return "everybody may write it (chmod o-w)"
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        return "everybody may replace it in its directory (chmod o-w)"
    return None


def _is_everybodys(folder: str) -> bool:
    return os.path.isdir(folder) and bool(os.stat(folder).st_mode & stat.S_IWOTH)


def _read(path: str, named: bool) -> tuple[IniFile, os.stat_result | None]:
    try:
        # a pipe that took the place of what was found has nobody who writes into it
        opener = None if named else lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
        with open(path, "rb", opener=opener) as stream:
            status = os.fstat(stream.fileno())
            data = stream.read()
    except OSError as error:
        advice = remedy(error, "correct the path or its permissions")
        fault = f"{path}: this INI file cannot be read: {error.strerror}: {advice}"
        if named:
            raise ConfigError(fault) from error
        return IniFile(path, fault=fault), None
    return _parsed(path, data), status


def _parsed(path: str, data: bytes) -> IniFile:
    text = data.decode("utf-8-sig", errors="replace")
    sections = frozenset(_HEADER.findall(text))
    # interpolation off: `%` is literal. No default section: PyTaskFarmer's [DEFAULT] is refused below, in words.
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        data.decode("utf-8-sig")
        parser.read_string(text)
    except (configparser.Error, UnicodeDecodeError) as error:
        # Tools of all kinds have INI files, in dialects of their own: only one that could define something is broken.
        return IniFile(path, sections=sections, fault=_fault(path, error)) if _DEFINES.search(text) else IniFile(path)
    definitions = tuple(_definitions(path, parser))
    if definitions and parser.has_section("DEFAULT"):
        fault = f"{path}: [DEFAULT] is not read: write its keys into the sections that need them"
        return IniFile(path, sections=sections, fault=fault)
    return IniFile(path, definitions, sections)


def _definitions(path: str, parser: configparser.ConfigParser) -> Iterator[Definition]:
    for name in parser.sections():
        # `%%` was how old files had to write `%`.
        values = {key: value.replace("%%", "%") for key, value in parser.items(name)}
        for kind, key in KEYS.items():
            if key in values:
                options = {other: value for other, value in values.items() if other != key}
                yield Definition(kind, name, path, values[key], options)


def _fault(path: str, error: configparser.Error | UnicodeDecodeError) -> str:
    if isinstance(error, configparser.DuplicateOptionError):
        return f"{path}: [{error.section}] {error.option}: line {error.lineno}: is there twice: keep one of the two"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"{path}: [{error.section}]: line {error.lineno}: is there twice: make one section of the two"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"{path}: line {error.lineno}: is in no section: write a [name] above it"
    if isinstance(error, configparser.ParsingError) and error.errors:
        return f"{path}: line {error.errors[0][0]}: is neither `key = value` nor `[section]`: correct it"
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"{path}: line {line}: is not UTF-8: save the file in that encoding"
    return f"{path}: this INI file cannot be parsed: {' '.join(str(error).split())}: correct it"


def _entry_points(kind: Kind) -> Iterator[Definition]:
    # Not at the top: it reads the metadata of everything that is installed, which a run without plug-ins can spare.
    from importlib.metadata import entry_points

    for point in entry_points(group=f"taskfarmer.{kind}s"):
        distribution = point.dist.name if point.dist is not None else "?"
        yield Definition(kind, point.name, f"entry point {distribution}", f"{point.module}.{point.attr}")


def _check_keys(definition: Definition, made_of: type) -> None:
    """Hold the keys of a section against the constructor that they are for."""
    try:
        parameters = list(inspect.signature(made_of).parameters.values())
    except (TypeError, ValueError):  # a class written in C may not say what it takes
        return
    given: list[str] = []
    if definition.kind == "tasklist":
        given, parameters = _without_path_and_workdir(definition, parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    valid = [p.name for p in named]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = f"its keys are {', '.join(valid)}" if valid else "it has no keys"
    for key in definition.options:
        if key in given or (key not in valid and not takes_any):
            raise ConfigError(_error(definition, key, f"{made_of.__name__} has no such key: {known}"))
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in definition.options:
            fact = f"{made_of.__name__} needs this key, and it is missing: {known}"
            raise ConfigError(_error(definition, parameter.name, fact))


def _without_path_and_workdir(
    definition: Definition, parameters: list[inspect.Parameter]
) -> tuple[list[str], list[inspect.Parameter]]:
    """Split off the two arguments that we give: the names of theirs that a key would collide with, and the rest."""
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:2]
    if len(places) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        fact = f"the constructor of {definition.class_path} does not take (path, workdir): let it take them first"
        raise ConfigError(_error(definition, KEYS["tasklist"], fact))
    return [p.name for p in places], [p for p in parameters if p not in places]


def _error(definition: Definition, key: str, fact: str) -> str:
    return f"{definition.file}: [{definition.name}] {key}: {fact}"


def _cause(error: BaseException) -> str:
    """Return what happened as one line, with the place in the user's code."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    machinery = ("<", __file__, str(importlib.__file__))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    if frames and not isinstance(error, SyntaxError):  # which says it by itself
        text += f" ({os.path.basename(frames[-1].filename)} line {frames[-1].lineno})"
    return text
