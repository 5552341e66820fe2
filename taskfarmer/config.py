"""Finds runners and task list handlers by name: INI files -> checked definitions -> objects.

A section `[name]` with a key `Runner` or `TaskList` defines one; its other keys are keyword arguments of the class.
`_ini_paths` lists the files in order of precedence, and the first definition of a name wins. A definition names code to
import. So a file that was found, rather than named, is used only if no other user can write to it; a class is imported
only if its name is requested; and an invalid definition or file is an error only then.
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
    """The definition of one name. `file` is a path, "built in" or "entry point <distribution>"."""

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
    """The schema of a section that defines a runner or a handler."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    class_path: str
    options: dict[str, str]

    @field_validator("class_path")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if "." not in value or not all(part.isidentifier() for part in value.split(".")):
            raise ValueError(f"{value!r} is not a class path: write package.module.Class")
        return value

    @field_validator("options")
    @classmethod
    def _is_of_one_kind(cls, value: dict[str, str]) -> dict[str, str]:
        if not value.keys().isdisjoint(KEYS.values()):
            raise ValueError("the section has both Runner and TaskList: split it into two sections")
        return value


@dataclass(frozen=True)
class IniFile:
    """An INI file: its definitions or, if it could not be parsed, its section names and `fault`, the error message."""

    path: str
    definitions: tuple[Definition, ...] = ()
    sections: frozenset[str] = frozenset()
    fault: str | None = None


class Configuration:
    """All definitions, in order of precedence. Created by `search`."""

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
        """Find and read all INI files; import nothing.

        `config_file` is the argument of --config, `beside` the directory of the task list: INI files and modules there
        and in `cwd` are found. Raise ConfigError if a file or directory that was named explicitly cannot be read.
        """
        environ = os.environ if environ is None else environ
        home = os.path.expanduser("~") if home is None else home
        files: list[IniFile] = []
        warnings: list[str] = []
        seen: set[str] = set()
        for path, named in _ini_paths(config_file, environ.get("TASKFARMER_CONFIG_DIR"), cwd, beside, home, etc):
            if (real := os.path.realpath(path)) in seen:
                continue
            file, status = _read(path, named)
            reason = None if named else _distrust_reason(path, status)
            if reason is None:
                seen.add(real)
                files.append(file)
            elif file.definitions or file.fault:
                warnings.append(f"{path}: ignored because {reason}: name it with --config if you trust it")
        return cls(files, warnings, [os.path.abspath(folder) for folder in (beside, cwd) if folder is not None])

    @property
    def faults(self) -> list[str]:
        """Error messages of the files that cannot be parsed, so that their definitions are unknown."""
        return [file.fault for file in self.files if file.fault]

    def definitions(self) -> list[Definition]:
        """Return all definitions, including those that an earlier one of the same name hides."""
        found = [definition for file in self.files for definition in file.definitions]
        return [*DEFAULTS, *found, *_entry_points("runner"), *_entry_points("tasklist")]

    def problem(self, definition: Definition) -> str | None:
        """Return an error message of one line, or None if the definition is valid. Imports its class."""
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
        """Create the runner `name`. Raise ConfigError if it is not defined or cannot be created."""
        definition = self._find("runner", name)
        runner_class = self._load(definition)
        try:
            return runner_class(**definition.options)
        except (Exception, SystemExit) as error:
            fact = f"{definition.class_path} cannot be created: {_cause(error)}: correct the keys of the section"
            raise ConfigError(_error(definition, KEYS["runner"], fact)) from error

    def tasklist_class(self, name: str) -> tuple[type, dict[str, str]]:
        """Return the class of a task list handler and its options, for `handler_class(path, workdir, **options)`."""
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
            f"no {NOUNS[kind]} named {name!r}{hints}: use one of {', '.join(names)}, "
            f"or define [{name}] with a key {KEYS[kind]} in an INI file"
        )

    def _load(self, definition: Definition) -> type:
        """Import and check the class of a definition."""
        key = KEYS[definition.kind]
        try:
            Section(class_path=definition.class_path, options=definition.options)
        except ValidationError as error:
            fact = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise ConfigError(_error(definition, key, fact)) from error
        found = self._import(definition)
        _check_keys(definition, found)
        return found

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
            for folder in filter(_is_world_writable, self._folders):
                advice += f"; {folder} is ignored because it is world-writable (chmod o-w)"
            raise ConfigError(_error(definition, key, fact + advice)) from error
        found = getattr(module, class_name, None)
        if not isinstance(found, type):
            fact = f"module {module_name} has no class {class_name}: correct the path"
            raise ConfigError(_error(definition, key, fact))
        missing = [method for method in METHODS[definition.kind] if not callable(getattr(found, method, None))]
        if missing:
            fact = f"{definition.class_path} is not a {NOUNS[definition.kind]}, it lacks {', '.join(missing)}: "
            raise ConfigError(_error(definition, key, fact + "name another class"))
        return found

    def _extend_path(self) -> None:
        """Add `beside` and `cwd` to `sys.path`, permanently, because modules may import others later."""
        for folder in self._folders:
            # other users could add an optional module that an installed module tries to import
            if folder not in sys.path and not _is_world_writable(folder):
                sys.path.append(folder)  # last, so that a file cannot replace an installed module
        importlib.invalidate_caches()


def _ini_paths(
    config_file: str | None, config_dir: str | None, cwd: str, beside: str | None, home: str, etc: str
) -> Iterator[tuple[str, bool]]:
    """Yield the paths of INI files in order of precedence, and whether each was named rather than found."""
    if config_file is not None:
        yield config_file, True
    if config_dir:
        if not os.path.isdir(config_dir):
            raise ConfigError(f"{config_dir}: not a directory: correct TASKFARMER_CONFIG_DIR, or unset it")
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
    # Skip directories and pipes: opening a pipe could wait forever.
    return [path for path in paths if os.path.isfile(path)]


def _distrust_reason(path: str, status: os.stat_result | None) -> str | None:
    """Return why another user may have written a file that was found, or None. `status` is that of the opened file."""
    try:
        link = os.lstat(path)
        status = status or os.stat(path)
        folder = os.stat(os.path.dirname(path) or ".")
    except OSError as error:
        return f"it is not accessible ({error.strerror})"
    if not {status.st_uid, link.st_uid} <= {0, os.geteuid()}:
        return "it belongs to another user"
    if status.st_mode & stat.S_IWOTH:
        return "it is world-writable (chmod o-w)"
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        return "its directory is world-writable (chmod o-w)"
    return None


def _is_world_writable(folder: str) -> bool:
    return os.path.isdir(folder) and bool(os.stat(folder).st_mode & stat.S_IWOTH)


def _read(path: str, named: bool) -> tuple[IniFile, os.stat_result | None]:
    try:
        # if a pipe has replaced the file that was found, opening it must not wait for a writer
        opener = None if named else lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
        with open(path, "rb", opener=opener) as stream:
            status = os.fstat(stream.fileno())
            data = stream.read()
    except OSError as error:
        advice = remedy(error, "correct the path or its permissions")
        fault = f"{path}: cannot read this INI file: {error.strerror}: {advice}"
        if named:
            raise ConfigError(fault) from error
        return IniFile(path, fault=fault), None
    return _parsed(path, data), status


def _parsed(path: str, data: bytes) -> IniFile:
    text = data.decode("utf-8-sig", errors="replace")
    sections = frozenset(_HEADER.findall(text))
    # No interpolation: `%` is literal. No default section: PyTaskFarmer's [DEFAULT] is an error below.
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        data.decode("utf-8-sig")
        parser.read_string(text)
    except (configparser.Error, UnicodeDecodeError) as error:
        # Other programs have INI files in other dialects: this is an error only if the file may contain a definition.
        return IniFile(path, sections=sections, fault=_fault(path, error)) if _DEFINES.search(text) else IniFile(path)
    definitions = tuple(_definitions(path, parser))
    if definitions and parser.has_section("DEFAULT"):
        fault = f"{path}: [DEFAULT] is not supported: copy its keys into the sections that need them"
        return IniFile(path, sections=sections, fault=fault)
    return IniFile(path, definitions, sections)


def _definitions(path: str, parser: configparser.ConfigParser) -> Iterator[Definition]:
    for name in parser.sections():
        # Files for PyTaskFarmer had to write `%%` for `%`.
        values = {key: value.replace("%%", "%") for key, value in parser.items(name)}
        for kind, key in KEYS.items():
            if key in values:
                options = {other: value for other, value in values.items() if other != key}
                yield Definition(kind, name, path, values[key], options)


def _fault(path: str, error: configparser.Error | UnicodeDecodeError) -> str:
    if isinstance(error, configparser.DuplicateOptionError):
        return f"{path}: [{error.section}] {error.option}: line {error.lineno}: duplicate key: remove one of the two"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"{path}: [{error.section}]: line {error.lineno}: duplicate section: merge the two"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"{path}: line {error.lineno}: not in a section: write a [name] above it"
    if isinstance(error, configparser.ParsingError) and error.errors:
        return f"{path}: line {error.errors[0][0]}: neither `key = value` nor `[section]`: correct it"
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"{path}: line {line}: not UTF-8: save the file in that encoding"
    return f"{path}: cannot parse this INI file: {' '.join(str(error).split())}: correct it"


def _entry_points(kind: Kind) -> Iterator[Definition]:
    # Imported here because it reads the metadata of all installed packages, which a run without plug-ins does not need.
    from importlib.metadata import entry_points

    for point in entry_points(group=f"taskfarmer.{kind}s"):
        distribution = point.dist.name if point.dist is not None else "?"
        yield Definition(kind, point.name, f"entry point {distribution}", f"{point.module}.{point.attr}")


def _check_keys(definition: Definition, plugin: type) -> None:
    """Raise ConfigError if the keys of a section do not match the parameters of the constructor."""
    try:
        parameters = list(inspect.signature(plugin).parameters.values())
    except (TypeError, ValueError):  # the signature of a class written in C may be unknown
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
            raise ConfigError(_error(definition, key, f"{plugin.__name__} has no such key: {known}"))
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in definition.options:
            fact = f"{plugin.__name__} requires this key, but it is missing: {known}"
            raise ConfigError(_error(definition, parameter.name, fact))


def _without_path_and_workdir(
    definition: Definition, parameters: list[inspect.Parameter]
) -> tuple[list[str], list[inspect.Parameter]]:
    """Return the names of the parameters for path and workdir, which no key may use, and the other parameters."""
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:2]
    if len(places) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        fact = f"the constructor of {definition.class_path} does not accept (path, workdir): make them come first"
        raise ConfigError(_error(definition, KEYS["tasklist"], fact))
    return [p.name for p in places], [p for p in parameters if p not in places]


def _error(definition: Definition, key: str, fact: str) -> str:
    return f"{definition.file}: [{definition.name}] {key}: {fact}"


def _cause(error: BaseException) -> str:
    """Return the exception as one line, with the line of the user's code that raised it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    machinery = ("<", __file__, str(importlib.__file__))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    if frames and not isinstance(error, SyntaxError):  # its message contains the line
        text += f" ({os.path.basename(frames[-1].filename)} line {frames[-1].lineno})"
    return text
