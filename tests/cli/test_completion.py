"""The scripts, as a real bash takes them; those of other shells are read by them where they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine

BASH = shutil.which("bash") or "bash"
DRIVE = """
source "$1"; shift
COMP_LINE=$1 COMP_POINT=${#1} COMP_CWORD=$(($# - 2)) COMP_WORDS=("${@:2}")
compopt() { printf '%s ' compopt "$@"; }
_holdfast_completion holdfast
printf '<%s>' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path, cli: CommandLine) -> Path:
    said = cli("completion", "bash")
    assert (said.code, said.err) == (0, "")
    path = tmp_path / "holdfast.bash"
    path.write_text(said.out)
    return path


def program(folder: Path, body: str) -> dict[str, str]:
    """Put a `holdfast` before all others; return the environment in which it is."""
    place = folder / "bin"
    place.mkdir()
    (place / "holdfast").write_text(body)
    (place / "holdfast").chmod(0o755)
    return {**os.environ, "PATH": f"{place}{os.pathsep}{os.environ['PATH']}"}


def the_real_one(folder: Path) -> dict[str, str]:
    return program(folder, f'#!/bin/sh\nexec "{sys.executable}" -m holdfast "$@"\n')


def tab(script: Path, environment: dict[str, str], line: str, *words: str) -> str:
    """Press Tab at the end of a line, of which bash has made these words."""
    done = subprocess.run(
        [BASH, "--norc", "-c", DRIVE, "bash", str(script), line, *words],
        env=environment,
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert done.stderr == ""
    return done.stdout


def test_bash_completes_commands_options_and_states(script: Path, tmp_path: Path) -> None:
    real = the_real_one(tmp_path)
    assert tab(script, real, "holdfast sta", "holdfast", "sta") == "<status>"
    options = tab(script, real, "holdfast drain --", "holdfast", "drain", "--")
    assert options == "<--json><--url><--state-dir><--help>"
    found = tab(script, real, "holdfast ls --state q", "holdfast", "ls", "--state", "q")
    assert found == "<queued>"
    assert tab(script, real, "holdfast ls --limit ", "holdfast", "ls", "--limit", "") == "<>"
    assert "compopt -o default" in tab(
        script, real, "holdfast bench --json x", "holdfast", "bench", "--json", "x"
    )
    assert not (tmp_path / ".holdfast").exists(), "a Tab starts no coordinator"


SAYS = """#!/bin/sh
echo "$COMP_CWORD: $COMP_WORDS" | tr '\\n' ' ' > "$0.asked"
echo oh >&2
printf '%s\\n' plain,builtins:int plain,one,two 'plain,a b' 'plain,f.<locals>'
"""


@pytest.mark.parametrize(
    ("line", "words", "asked", "first"),
    [
        ("holdfast ls --function b", "ls --function b", "3: holdfast ls --function b ", ""),
        (
            "holdfast ls --function builtins:i",
            "ls --function builtins : i",
            "3: holdfast ls --function builtins:i ",
            "builtins:",
        ),
        (
            "holdfast  ls --function=builtins:",
            "ls --function = builtins : ",
            "2: holdfast ls --function=builtins: ",
            "builtins:",
        ),
        (
            "holdfast drain --url http://h:1 ",
            "drain --url http : //h : 1 ",
            "4: holdfast drain --url http://h:1  ",
            "",
        ),
    ],
)
def test_words_that_bash_parts_are_joined(
    line: str, words: str, asked: str, first: str, script: Path, tmp_path: Path
) -> None:
    environment = program(tmp_path, SAYS)
    found = tab(script, environment, line, "holdfast", *words.split(" "))
    offered = "builtins:int".removeprefix(first)
    assert found == f"<{offered}><one\\,two><a\\ b><f.\\<locals\\>>"
    assert (tmp_path / "bin" / "holdfast.asked").read_text() == asked


def test_a_program_that_is_gone_is_no_news(script: Path) -> None:
    nowhere = {**os.environ, "PATH": "/nowhere"}
    done = tab(script, nowhere, "holdfast st", "holdfast", "st")
    assert done == "<>"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_one_of_its_shell(shell: str, cli: CommandLine, tmp_path: Path) -> None:
    said = cli("completion", shell)
    assert said.out.count("2>/dev/null") == 1
    assert f"_HOLDFAST_COMPLETE={shell}_complete" in said.out
    assert ("--keep-order" in said.out) is (shell == "fish")
    there = shutil.which(shell)
    if there:
        (tmp_path / "script").write_text(said.out)
        words = [there, "-n", str(tmp_path / "script")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_scripts_of_click_itself_work_as_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast"],
        env={**os.environ, "_HOLDFAST_COMPLETE": "zsh_source"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_HOLDFAST_COMPLETE=zsh_complete" in done.stdout
