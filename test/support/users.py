"""Two users who share a machine: one runs farmers, the other may write in directories that all users can write."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
VICTIM = 12345
ATTACKER = 65534
GROUP = 54321
"""A group that both users are in if a test requests it."""

COMMAND = "import os, sys; os.chdir(sys.argv.pop(1)); sys.path.remove(''); from taskfarmer.start import *; taskfarmer()"
"""As the installed command does it: `python -m` would search the current directory for modules."""

SECRET = "kept by its owner\n"


@contextmanager
def acting_as(uid: int, gid: int | None = None) -> Iterator[None]:
    """Inside the block this user does all file operations, as far as the kernel is concerned."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid if gid is None else gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def words_as(*options: str, uid: int = VICTIM, groups: str = "--clear-groups") -> list[str]:
    """The prefix of a command that runs as that user."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", groups, *options]


READING = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
"""If only root may read the checkout: the user can read all files, and write no more than before."""


def may_import(*options: str) -> bool:
    words = [*words_as(*options), sys.executable, "-c", "import taskfarmer.cli"]
    return not subprocess.run(words, env=variables(Path("/")), cwd="/", capture_output=True, check=False).returncode


def variables(home: Path, **more: str) -> dict[str, str]:
    ours = ("SCRATCH", "TASKFARMER_CONFIG_DIR")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "PYTHONPATH": str(TOP), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home), **more}


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    said: str

    def lines_with(self, text: str) -> list[str]:
        return [line for line in self.said.splitlines() if text in line]


class User:
    """The victim: a private home with files that no other user may change, and a task list."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.options = options
        self.before = words_as(*options)
        self.home = folder / "home"
        self.scratch = folder / "scratch"
        self.list = self.home / "list"
        self.workdir = self.home / "list_workdir"
        self.folder_of_his = self.home / "folder"
        self.file = self.home / "bashrc"
        self.scratch.mkdir()
        self.scratch.chmod(0o1777)
        self.home.mkdir()
        os.chown(self.home, VICTIM, VICTIM)
        with acting_as(VICTIM):
            self.folder_of_his.mkdir(0o755)
            (self.folder_of_his / "precious").write_text(SECRET)
            self.file.write_text(SECRET)
            self.list.write_text("true\necho $PROC_NUMBER\n")

    @property
    def private(self) -> Path:
        return self.scratch / f".taskfarmer-{VICTIM}"

    def append(self, command: str = "true") -> None:
        with open(self.list, "a") as file:
            file.write(f"{command}\n")

    def verb(
        self, *words: object, umask: int = 0o022, before: Sequence[str] = (), cwd: Path | None = None, **more: str
    ) -> Done:
        """Run `taskfarmer ...` as this user."""
        line = [*(before or self.before), sys.executable, "-c", COMMAND, str(cwd or self.home), *map(str, words)]
        done = subprocess.run(
            line,
            cwd="/",
            env=variables(self.home, **more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            umask=umask,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *options: object, cwd: Path | None = None, umask: int = 0o022, **more: str) -> Done:
        return self.verb("run", self.list, *options, cwd=cwd, umask=umask, **more)

    def belongings(self) -> dict[str, tuple[object, ...]]:
        """All files in the home except the farm: kind, mode, owner, number of names, content."""
        found = {}
        for path in sorted(self.home.rglob("*")):
            farms = (self.workdir, self.home / "list_workdir", self.home / "shared")
            if not {path, *path.parents} & {*farms, self.list}:
                found[str(path)] = describe(path)
        return found


def describe(path: Path) -> tuple[object, ...]:
    """Kind and attributes of a file, and its content if it has one."""
    found = os.lstat(path)
    content = path.read_bytes() if stat.S_ISREG(found.st_mode) else None
    target = os.readlink(path) if stat.S_ISLNK(found.st_mode) else None
    return oct(found.st_mode), found.st_uid, found.st_gid, content, target


Plant = Callable[[Path, User], None]


def link_to_folder(path: Path, user: User) -> None:
    path.symlink_to(user.folder_of_his)


def link_to_file(path: Path, user: User) -> None:
    path.symlink_to(user.file)


def dangling_link(path: Path, user: User) -> None:
    path.symlink_to(user.home / "made-by-following")


def fifo(path: Path, user: User) -> None:
    os.mkfifo(path, 0o666)
    path.chmod(0o666)


def open_folder(path: Path, user: User) -> None:
    path.mkdir()
    path.chmod(0o777)


def closed_folder(path: Path, user: User) -> None:
    path.mkdir(0o700)


def own_file(path: Path, user: User) -> None:
    path.write_text("the attacker's own\n")
    path.chmod(0o666)


def hard_link(path: Path, user: User) -> None:
    """Most kernels forbid the attacker this link (fs.protected_hardlinks), so root creates it."""
    os.seteuid(0)
    os.link(user.file, path)


def held_file(path: Path, user: User) -> None:
    path.touch()
    path.chmod(0o666)
    held = os.open(path, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    HELD.append(held)


HELD: list[int] = []
"""Descriptors with locks of the attacker; `close_held` closes them."""

PLANTS: tuple[Plant, ...] = (
    link_to_folder,
    link_to_file,
    dangling_link,
    fifo,
    open_folder,
    closed_folder,
    own_file,
    hard_link,
    held_file,
)


def close_held() -> None:
    while HELD:
        os.close(HELD.pop())


def planted(plant: Plant, path: Path, user: User, gid: int | None = None) -> tuple[object, ...]:
    """Let the attacker put the file there, as a member of that group; its description."""
    with acting_as(ATTACKER, gid):
        plant(path, user)
    return describe(path)
