"""Everything that the documentation mentions exists: commands, options, verbs, files, exit statuses, links."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from taskfarmer.cli.program import INTERNAL_ERROR
from taskfarmer.options import Exit

HERE = Path(__file__).resolve().parent.parent
PAGES = sorted([*HERE.glob("*.md"), *HERE.glob("docs/**/*.md"), *HERE.glob("examples/**/*.md")])
LISTS = sorted(HERE.glob("examples/*.txt"))
README = (HERE / "README.md").read_text(encoding="utf-8")

NOT_OURS = {"--ntasks-per-node", "--block-signal", "--signal", "--array", "--cpus-per-task", "--time", "--nodes"}
PYTASKFARMER = [sys.executable, str(HERE / "pytaskfarmer.py")]
TASKFARMER = [sys.executable, "-m", "taskfarmer"]


def page_name(path: Path) -> str:
    return path.relative_to(HERE).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(*command: str, cwd: Path = HERE, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(HERE), "COLUMNS": "200", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def help_of(*command: str) -> str:
    done = run(*command, "--help")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def verbs() -> list[str]:
    text = help_of(*TASKFARMER).partition("Commands:")[2]
    return re.findall(r"^  ([a-z]+)", text, re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor that a Markdown renderer gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page_name(page)}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page_name(page)}: {target}"


def test_the_two_commands_of_the_readme_exist() -> None:
    commands = [line for block in blocks(README, "bash") for line in block.splitlines() if "-m venv" in line]
    assert len(commands) == 2
    first, second = commands
    example = first.split()[-1]
    assert (HERE / example).is_file()
    assert re.search(r"'\.\[(\w+)\]'", second)
    assert second.endswith("/pytest -n auto -m 'not campaign'")
    assert re.search(r"^test = \[.*pytest", (HERE / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    script = (HERE / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(HERE / ".ci" / "run", os.X_OK)
    pattern = re.search(r"grep -E '([^']+)' README\.md", script)
    assert pattern is not None
    assert len(re.findall(pattern[1], README, re.MULTILINE)) == 1


@pytest.mark.parametrize("path", LISTS, ids=page_name)
def test_an_example_list_runs_without_a_failure(path: Path, tmp_path: Path) -> None:
    done = run(*PYTASKFARMER, str(path), "-w", str(tmp_path / "farm"))
    assert done.returncode == Exit.DONE, done.stderr
    assert (tmp_path / "farm" / "failed").read_bytes() == b""
    logs = "".join(log.read_text(encoding="utf-8") for log in (tmp_path / "farm" / "logs").iterdir())
    assert "the sum of 1 to 1000 is 500500" in logs


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_option_of_our_commands_on_a_page_exists(page: Path) -> None:
    texts = {"pytaskfarmer.py": help_of(*PYTASKFARMER)}
    known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", texts["pytaskfarmer.py"])) | {"--help", "-h"}
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"pytaskfarmer\.py((?: [^\n`|#>]*)?)", text):
        for option in re.findall(r"(?<= )--?[A-Za-z][\w-]*", command):
            assert option in known, f"{page_name(page)}: pytaskfarmer.py{command}"


@pytest.fixture(scope="module")
def helps(verbs: list[str]) -> dict[str, str]:
    return {verb: help_of(*TASKFARMER, verb) for verb in verbs}


def options_of(text: str) -> set[str]:
    """The options that a help lists, without those of its examples."""
    lists = re.findall(r"^  (-\S.*?)(?:  |$)", text, re.MULTILINE)
    return {option for one in lists for option in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", one)}


def unknown_options(text: str, helps: dict[str, str]) -> list[str]:
    """Calls of `taskfarmer VERB` with an option that the verb does not list; the words after `--` do not count."""
    found = []
    for verb, words in re.findall(r"(?<![\w-])taskfarmer ([a-z]+)((?: [^\n`|#>]*)?)", text):
        ours = re.findall(r"(?<= )--?[A-Za-z][\w-]*", f"{words} ".partition(" -- ")[0])
        if verb in helps and not set(ours) <= options_of(helps[verb]):
            found.append(f"taskfarmer {verb}{words}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_option_of_a_verb_on_a_page_exists(page: Path, helps: dict[str, str]) -> None:
    assert unknown_options(page.read_text(encoding="utf-8").replace("\\\n", ""), helps) == []


def test_every_option_in_the_examples_of_a_help_exists(helps: dict[str, str]) -> None:
    assert unknown_options("taskfarmer status DIR --nosuch\ntaskfarmer stop DIR --now", helps) == [
        "taskfarmer status DIR --nosuch"
    ]
    examples = {verb: text.partition("Examples:")[2].partition("\n\n")[0] for verb, text in helps.items()}
    assert sum(f"taskfarmer {verb}" in text for verb, text in examples.items()) > len(helps) / 2
    assert {verb: unknown_options(text, helps) for verb, text in examples.items()} == {verb: [] for verb in helps}


def test_every_option_in_the_readme_exists(verbs: list[str]) -> None:
    known = set(NOT_OURS)
    for command in (PYTASKFARMER, *([*TASKFARMER, verb] for verb in verbs)):
        known |= set(re.findall(r"(?<![\w-])--[a-z][\w-]*", help_of(*command)))
    outside = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", outside)) <= known


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_verb_on_a_page_exists(page: Path, verbs: list[str]) -> None:
    named = re.findall(r"(?:`|^)taskfarmer ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= set(verbs)


def test_the_readme_names_every_verb(verbs: list[str]) -> None:
    assert set(re.findall(r"`taskfarmer ([a-z]+)", README)) == set(verbs)


def test_the_exit_statuses_of_the_readme_are_those_of_the_code() -> None:
    section = README.partition("## Exit status")[2].partition("\n## ")[0]
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    assert numbers == sorted((*Exit, INTERNAL_ERROR))


def test_the_readme_names_the_files_of_a_work_directory(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("true\n", encoding="ascii")
    assert run(*PYTASKFARMER, "list", cwd=tmp_path).returncode == Exit.DONE
    section = README.partition("## The work directory")[2].partition("\n## ")[0]
    written = {name.strip("/").split("/")[0] for name in re.findall(r"`([a-z./<>ID_]+)`", section)}
    there = {entry.name for entry in (tmp_path / "list_workdir").iterdir()}
    assert written & there >= {"toprocess", "finished", "failed", "logs", "timeline.json"}
    assert {name for name in there if name not in ("lock", "views.json")} <= written


def test_the_runner_in_the_readme_runs_unchanged(tmp_path: Path) -> None:
    (ini,) = blocks(README, "ini")
    (module,) = blocks(README, "python")
    (tmp_path / "mine.ini").write_text(ini, encoding="utf-8")
    (tmp_path / "mine.py").write_text(module, encoding="utf-8")
    (tmp_path / "tasklist.txt").write_text("nice\n", encoding="ascii")
    parser = ConfigParser()
    parser.read_string(ini)
    done = run(*PYTASKFARMER, "-r", parser.sections()[0], "tasklist.txt", cwd=tmp_path)
    assert done.returncode == Exit.DONE, done.stderr
    level = int((tmp_path / "tasklist.txt_workdir" / "logs" / "log_0").read_text(encoding="ascii"))
    assert level == min(19, 10 + os.nice(0))


def test_the_table_of_broken_rules_is_the_output_of_its_command() -> None:
    words = [sys.executable, "-m", "support.simulated.find_seeds"]
    done = run(*words, "--check", PYTHONPATH=f"{HERE}:{HERE / 'test'}")
    assert (done.returncode, done.stderr) == (0, ""), f"run {' '.join(words)}"


@pytest.mark.parametrize(("name", "number"), [("spawn", 20), ("workers", 3), ("import", 1000)])
def test_a_benchmark_runs_and_writes_its_figures(name: str, number: int, tmp_path: Path) -> None:
    if name == "spawn" and shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    report = tmp_path / "report"
    words = (name, "-N", str(number), "--rounds", "1", "--dir", str(tmp_path), "--json", str(report))
    done = run(sys.executable, "-m", "benchmarks", *words)
    assert done.returncode == 0, done.stderr
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document["benchmark"] == name
    for figure in document["figures"]:
        assert figure["ratio"] > 0
        assert figure["name"] in done.stdout
