"""The documents are checked like code: what they run, name, link and print is true."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import click
import msgspec
import pytest

from holdfast.cli import main
from holdfast.cli.app import EXIT_TEXT, holdfast
from tests.conftest import Eventually

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PROGRAM_SECONDS = 50


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a document: the words after its fence, and its text."""

    document: Path
    words: tuple[str, ...]
    text: str

    @property
    def program(self) -> str:
        """The file name in the first line of a Python program, "" for a fragment."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return named[1] if named else ""


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for words, body in re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield Block(document, tuple(words.split()), body)


def all_blocks(language: str) -> list[Block]:
    found = (block for document in DOCUMENTS for block in blocks(document))
    return [block for block in found if block.words[:1] == (language,)]


def prose_of(document: Path) -> str:
    text = document.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# What is shown is run.


@pytest.fixture
def folder(tmp_path: Path, eventually: Eventually) -> Iterator[Path]:
    """An empty folder; the coordinator that a program starts in it is ended afterwards."""
    yield tmp_path
    state = tmp_path / ".holdfast"
    if not state.exists():
        return
    try:
        announced = (state / "endpoint.json").read_bytes()
        os.kill(msgspec.json.decode(announced)["pid"], signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError):
        pass  # It has ended already, or is about to.
    for lock in (state / "coordinator.lock", state / "worker-0" / "lock"):
        eventually(f"{lock} is free", lambda lock=lock: is_free(lock), within_seconds=30.0)


def is_free(lock: Path) -> bool:
    if not lock.exists():
        return True
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def run(command: list[str], folder: Path) -> str:
    """Run a command as a reader would, `holdfast` being the one of this source; give its output."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    script = f'#!/bin/sh\nexec "{sys.executable}" -m holdfast "$@"\n'
    (programs / "holdfast").write_text(script, encoding="utf-8")
    (programs / "holdfast").chmod(0o755)
    path = os.pathsep.join((str(programs), os.environ.get("PATH", "")))
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("document", ["README.md", "docs/quickstart.md", "docs/coming-from.md"])
def test_the_programs_of_a_page_run(document: str, folder: Path) -> None:
    shown = [block for block in blocks(ROOT / document) if block.program or "run" in block.words]
    assert shown
    for block in shown:
        if block.program:
            (folder / block.program).write_text(block.text, encoding="utf-8")
            assert run([sys.executable, block.program], folder).strip()
        else:
            assert run(["sh", "-e", "-c", block.text], folder).strip()


def test_the_start_of_the_readme_prints_what_it_computes(folder: Path) -> None:
    (start,) = [block for block in blocks(ROOT / "README.md") if block.program]
    assert len(start.text.strip().splitlines()) <= 14
    (folder / start.program).write_text(start.text, encoding="utf-8")
    squares = sum(number * number for number in range(1000))
    assert run([sys.executable, start.program], folder).split() == ["144", str(squares)]


def test_python_fragments_compile() -> None:
    for block in all_blocks("python") + all_blocks("py"):
        compile(block.text, name_of(block.document), "exec")


def shown_commands() -> list[tuple[Path, list[str]]]:
    found = []
    for block in all_blocks("sh"):
        for line in block.text.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append((block.document, words))
    return found


def test_every_holdfast_command_that_is_shown_can_be_said() -> None:
    for document, words in shown_commands():
        if words[0] == "holdfast":
            try:
                command_named(words[1]).make_context(words[1], words[2:])
            except click.ClickException as error:
                pytest.fail(f"{name_of(document)}: {shlex.join(words)}: {error.format_message()}")


def test_the_installed_command_is_the_one_described() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["holdfast"].partition(":")
    assert getattr(importlib.import_module(module), name) is main


def test_every_make_target_that_is_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for document, words in shown_commands():
        if words[0] == "make":
            asked = {word for word in words[1:] if "=" not in word}
            assert asked <= targets, name_of(document)


# The command line is complete.


def command_named(name: str) -> click.Command:
    command = holdfast.get_command(click.Context(holdfast), name)
    assert command is not None, f"there is no command {name!r}"
    return command


def sections_of_the_cli() -> dict[str, str]:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    pieces = re.split(r"^### ([^\n]+)\n", text, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


@pytest.mark.parametrize("name", holdfast.list_commands(click.Context(holdfast)))
def test_a_command_is_described_with_all_its_options(name: str) -> None:
    section = sections_of_the_cli().get(name)
    assert section, f"docs/cli.md does not describe {name}"
    for parameter in command_named(name).params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"{re.escape(option)}(?![\w-])", section), f"{name} {option}"


def test_no_command_is_described_that_does_not_exist() -> None:
    described = set(sections_of_the_cli()) - {"Exit codes"}
    assert described == set(holdfast.list_commands(click.Context(holdfast)))


@pytest.mark.parametrize("name", holdfast.list_commands(click.Context(holdfast)))
def test_no_option_is_described_that_does_not_exist(name: str) -> None:
    known = {"--help", "--no-wait"}
    for parameter in command_named(name).params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    rows = re.findall(r"^\| `(--[^|]*)\|", sections_of_the_cli()[name], re.MULTILINE)
    described = {option for row in rows for option in re.findall(r"--[a-z-]+", row)}
    assert described <= known


def test_the_exit_codes_are_all_told() -> None:
    told = re.findall(r"^\| (\d+) \|", sections_of_the_cli()["Exit codes"], re.MULTILINE)
    assert [int(code) for code in told] == [int(code) for code in EXIT_TEXT]


# What is named exists.


PLACES = (ROOT, ROOT / "src" / "holdfast")
FILE = re.compile(r"`((?:src|tests|docs|bench|[a-z]+)/[\w./-]*|[a-z_]+\.py)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_that_are_named_exist(document: Path) -> None:
    text = prose_of(document)
    for name in FILE.findall(text):
        if name not in NOT_FILES:
            assert any((place / name).exists() for place in PLACES), f"{name} does not exist"


NOT_FILES = {"blobs/"}
"""Named like a path of this repository, but a thing in a state directory."""


def test_every_row_of_the_guarantees_names_code_and_a_test() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] not in ("| promise", "| ---")]
    assert len(rows) > 20
    for promise, code, tests in rows:
        assert FILE.search(code), promise
        assert "`tests/" in tests, promise


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    text = prose_of(document)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / unquote(path)).resolve() if path else document
        assert found.exists(), target
        if anchor:
            assert anchor in anchors_of(found), target


def anchors_of(document: Path) -> set[str]:
    """Return the anchors of a page's headings, as hosts of Markdown make them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def test_every_decision_argues() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [int(path.name[:4]) for path in decisions]
    assert numbers == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name
        for part in ("Context", "Decision", "Alternatives", "Consequences"):
            assert f"\n## {part}\n" in text, f"{path.name} has no {part}"


# What is generated is current.


def generator(name: str = "generate") -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_life_of_a_task_is_what_the_tables_give() -> None:
    made = generator()
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run python docs/generate.py"


def test_the_reference_of_rest_is_what_the_application_gives() -> None:
    made = generator("reference")
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run python docs/reference.py"


def test_the_diagram_has_the_arrows_that_everybody_knows() -> None:
    arrows = {
        (before.text, after.text): words for (before, after), words in generator().arrows().items()
    }
    assert arrows["queued", "running"][0] == "claim"
    assert arrows["running", "succeeded"] == ["succeeded"]
    assert arrows["paused", "queued"] == ["resume"]
    assert not any(before in ("succeeded", "failed", "cancelled") for before, _ in arrows)
