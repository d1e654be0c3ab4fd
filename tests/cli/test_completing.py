"""What is offered at a Tab, in the words that zsh and click say to each other."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from holdfast import wiring
from holdfast.cli.app import COMPLETE_VARIABLE, holdfast
from holdfast.model.task import State

TASKS = [
    {"id": "01a3", "state": "running", "function": "m:f", "queue": "default"},
    {"id": "01a2", "state": "failed", "function": "m:\x1b[1m", "queue": "b"},
    {"id": "02a1", "state": "queued", "function": "n:g", "queue": "default"},
]
WORKERS = [
    {"name": "one", "state": "connected", "running": 1, "slots": 2, "queues": ["c"]},
    {"name": "two", "state": "draining", "running": 0, "slots": 4, "queues": []},
]
Question = tuple[str, dict[str, Any]]


class Glances:
    """Stands for the coordinator that is looked at; keeps what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"list": TASKS, "workers": WORKERS, **answers}
        self.asked: list[Question] = []
        self.where: list[object] = []
        self.seconds = 0.0
        self.up = True

    def __call__(
        self, url: object, state_dir: object, questions: Sequence[Question], *, seconds: float
    ) -> list[Any] | None:
        self.where = [url, state_dir]
        self.asked = list(questions)
        self.seconds = seconds
        return [self.answers[name] for name, _ in questions] if self.up else None


@pytest.fixture
def glances(monkeypatch: pytest.MonkeyPatch) -> Glances:
    made = Glances()
    monkeypatch.setattr(wiring, "glance", made)
    return made


Offered = Callable[..., list[tuple[str, str | None]]]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, glances: Glances) -> Offered:
    """Return what is offered for the last of some words, and the help of each."""

    def offer(*words: str, kind: type[ShellComplete] = ZshComplete) -> list[tuple[str, str | None]]:
        monkeypatch.setenv("COMP_WORDS", shlex.join(("holdfast", *words)))
        # fish says which word it is; the others, at which place it stands.
        monkeypatch.setenv("COMP_CWORD", words[-1] if kind is FishComplete else str(len(words)))
        shell = kind(holdfast, {}, "holdfast", COMPLETE_VARIABLE)
        args, incomplete = shell.get_completion_args()
        return [(item.value, item.help) for item in shell.get_completions(args, incomplete)]

    return offer


def names(found: list[tuple[str, str | None]]) -> list[str]:
    return [name for name, _ in found]


def test_subcommands_with_what_they_do(offered: Offered) -> None:
    assert ("status", "Show one task.") in offered("sta")
    assert names(offered("")) == holdfast.list_commands(click.Context(holdfast))
    assert names(offered("no-such")) == []


def test_options_of_the_group_and_of_a_subcommand(offered: Offered) -> None:
    assert "--help" in names(offered("--"))
    assert {"--state", "--queue", "--before", "--json"} <= set(names(offered("ls", "--")))


@pytest.mark.parametrize("command", ["status", "result", "story", "why"])
def test_ids_newest_first_with_state_and_function(
    command: str, offered: Offered, glances: Glances
) -> None:
    assert offered(command, "") == [
        ("01a3", "running m:f"),
        ("01a2", "failed 'm:\\x1b[1m'"),
        ("02a1", "queued n:g"),
    ]
    assert glances.asked == [("list", {"states": [], "limit": 50})]
    assert 0 < glances.seconds <= 0.3


def test_the_beginning_of_an_id_is_asked_for_however_old(
    offered: Offered, glances: Glances
) -> None:
    assert names(offered("status", "01A")) == ["01a3", "01a2"]
    assert glances.asked[0][1]["before"] == "01a" + 29 * "f"


def test_what_can_be_cancelled_and_was_not_named_yet(offered: Offered, glances: Glances) -> None:
    assert names(offered("cancel", "01a2", "")) == ["01a3", "02a1"]
    assert glances.asked[0][1]["states"] == ["queued", "running", "paused"]


def test_workers_states_queues_and_functions(offered: Offered) -> None:
    assert offered("drain", "") == [
        ("one", "connected, 1 of 2 running"),
        ("two", "draining, 0 of 4 running"),
    ]
    assert names(offered("drain", "t")) == ["two"]
    assert names(offered("ls", "--state", "")) == [state.text for state in State]
    assert names(offered("ls", "--state", "ca")) == ["cancelled"]
    assert names(offered("ls", "--queue", "")) == ["b", "c", "default"]
    assert names(offered("submit", "m:f", "--queue", "d")) == ["default"]
    # A name that a terminal would obey is no name to type.
    assert names(offered("ls", "--function", "")) == ["m:f", "n:g"]


def test_the_coordinator_is_the_one_that_is_named(offered: Offered, glances: Glances) -> None:
    offered("status", "--url", "http://there:1", "")
    assert glances.where == ["http://there:1", None]
    offered("status", "--state-dir", "/there", "")
    assert glances.where == [None, Path("/there")]


@pytest.mark.parametrize("words", ["status", "cancel", "drain", "ls --queue", "ls --function"])
def test_where_nobody_answers_nothing_is_offered(
    words: str, offered: Offered, glances: Glances
) -> None:
    glances.up = False
    assert offered(*words.split(), "") == []


@pytest.mark.parametrize("kind", [BashComplete, ZshComplete, FishComplete])
def test_every_shell_is_offered_the_same(kind: type[ShellComplete], offered: Offered) -> None:
    assert names(offered("drain", "t", kind=kind)) == ["two"]
    assert names(offered("st", kind=kind)) == ["status", "story"]


def test_what_is_heavy_is_not_imported_for_words_that_never_change(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from holdfast.cli.app import run\n"
        "os.environ.update(_HOLDFAST_COMPLETE='zsh_complete', COMP_CWORD='2')\n"
        "for words in ('holdfast st', 'holdfast ls --', 'holdfast drain --'):\n"
        "    os.environ.update(COMP_WORDS=words, COMP_CWORD=str(words.count(' ')))\n"
        "    run()\n"
        "heavy = ('asyncio', 'cloudpickle', 'msgspec', 'rich', 'websockets')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.endswith("\n[]\n")
    assert done.stderr == ""
    assert not [*tmp_path.iterdir()]
