"""The demonstration without its processes: what is waited for, what is compared, what is told."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from holdfast.cli.demo import demo
from holdfast.errors import NoCoordinatorError, TaskFailedError
from holdfast.lab.blows import Blow, Plan
from holdfast.lab.demonstration import KINDS, Answers, Report, compare, plain, run_under_fire
from holdfast.lab.witness import Witness, WitnessReader
from holdfast.lab.workloads.indexing import merge

RUN = """
import sys
from holdfast.lab.witness import Witness
with Witness(sys.argv[1]).running("t", 1):
    sys.stdin.read()
"""


class Silent:
    """An `Audience` that looks away."""

    def indexed(self, count: int) -> None: ...

    def once_more(self, tasks: int) -> None: ...

    def fell(self, blow: Blow, hit: bool) -> None: ...


class Cluster:
    """A coordinator that does not come back."""

    def worker_of(self, pid: int) -> str:
        return "w"

    def kill_coordinator(self) -> int:
        return 1

    def start_coordinator(self) -> None:
        raise NoCoordinatorError("it does not start")


class Client:
    """Its tasks never end."""

    def submit(self, *call: Any) -> Future[Any]:
        return Future()


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[Path]:
    """The witness of one task at work, which is no part of this process."""
    witness = tmp_path / "witness"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, witness], stdin=subprocess.PIPE, env=os.environ
    )
    WitnessReader(witness).wait_until("a task runs", WitnessReader.busy)
    yield witness
    process.kill()
    process.communicate()


def test_a_coordinator_that_stays_dead_is_told_although_no_task_ends(at_work: Path) -> None:
    plan = Plan(seconds=1, children=1, workers=1, coordinators=1)
    first = ("coordinator",)
    seed = next(n for n in range(100) if plan.blows(random.Random(n))[0] == first)
    with pytest.raises(NoCoordinatorError, match="does not start"):
        run_under_fire(
            Cluster(),  # type: ignore[arg-type]  # a stand-in
            Client(),  # type: ignore[arg-type]  # a stand-in
            ["a.txt"],
            witness=at_work,
            blows_each=1,
            seed=seed,
            audience=Silent(),
        )


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.txt").write_text("one two\n")
    (tree / "b.py").write_bytes(b"x\0\xff(" + b"(" * 5000)
    (tree / "c.txt").write_bytes(b"\xff\xfe")
    # Of root, too, this cannot be read: there is nothing at its first address.
    (tree / "d.txt").symlink_to("/proc/self/mem")
    return sorted(str(path) for path in tree.iterdir())


@pytest.fixture
def answers(files: list[str]) -> Answers:
    entries, sums = plain(files)
    return Answers(entries=[*entries], again=[(files[0], entries[0])], sums=sums)


def compared(files: list[str], answers: Answers) -> Report:
    struck = {"child": 1, "worker": 1, "coordinator": 1}
    report = Report(files=len(files), blows_each=1, struck=struck)
    compare(report, files, answers)
    return report


def test_equal_results_are_valid_also_those_of_files_that_are_no_text(
    files: list[str], answers: Answers
) -> None:
    report = compared(files, answers)
    assert report.is_valid
    assert (report.unreadable, report.indexed_again) == (1, 1)
    assert report.sums["files"] == 4
    assert replace(report, struck={"child": 1, "worker": 1}).too_few == ["coordinator"]


class Ended(Future[Any]):
    """A future of a task that has ended."""

    def wait_done(self, timeout: float) -> bool:
        return True


class Prompt:
    """A client whose tasks end at once."""

    def submit(self, *call: Any) -> Ended:
        future = Ended()
        future.set_result({})
        return future


def witnessed(tmp_path: Path, *steps: tuple[str, int]) -> Report:
    """Return the report on a task of which the witness saw these steps, and that nothing struck."""
    witness = Witness(tmp_path / "witness")
    for kind, fence in steps:
        {"begin": witness.begin, "end": witness.end}[kind]("t", fence)
    report, _ = run_under_fire(
        Cluster(),  # type: ignore[arg-type]  # a stand-in
        Prompt(),  # type: ignore[arg-type]  # a stand-in
        ["a.txt"],
        witness=tmp_path / "witness",
        blows_each=0,
        seed=1,
        audience=Silent(),
    )
    return report


def test_a_task_that_ends_once_is_valid(tmp_path: Path) -> None:
    assert witnessed(tmp_path, ("begin", 1), ("end", 1)).is_valid


def test_a_task_that_begins_twice_without_a_blow_is_not_valid(tmp_path: Path) -> None:
    report = witnessed(tmp_path, ("begin", 1), ("begin", 2), ("end", 2), ("end", 1))
    assert (report.begun_twice_alive, report.broken_off_alone) == (["t"], [])
    assert not report.is_valid


def test_a_task_that_breaks_off_without_a_blow_is_not_valid(tmp_path: Path) -> None:
    report = witnessed(tmp_path, ("begin", 1))
    assert (report.begun_twice_alive, report.broken_off_alone) == ([], ["t"])
    assert not report.is_valid


@pytest.mark.parametrize("offence", ["", "lost", "begun_twice_alive", "broken_off_alone"])
def test_what_is_not_valid_is_told_and_ends_with_1(
    offence: str, files: list[str], answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = compared(files, answers)
    kinds = dict.fromkeys(KINDS, 0)
    report = replace(report, blows_each=0, fallen=kinds, struck=kinds, broken_off=kinds)
    report.begun_again_ms = {kind: [] for kind in KINDS}
    if offence:
        setattr(report, offence, ["the one task"])
    monkeypatch.setattr("holdfast.cli.demo._run", lambda *_: (report, answers))
    monkeypatch.setattr("holdfast.cli.demo.compare", lambda *_: None)
    told = CliRunner().invoke(demo, ["--input", str(Path(files[0]).parent)])
    assert told.exit_code == (1 if offence else 0), told.output
    assert ("the one task" in told.output) == bool(offence)


def test_a_difference_is_found(files: list[str], answers: Answers) -> None:
    assert answers.entries[0] is not None
    answers.entries[0] = answers.entries[0] | {"words": 99}
    report = compared(files, answers)
    assert report.differing == [files[0]]
    assert not report.is_valid


def test_a_difference_in_what_was_done_again_is_found(files: list[str], answers: Answers) -> None:
    answers.again.append((files[2], {"path": files[2]}))
    assert compared(files, answers).differing == [files[2]]


def test_other_sums_are_a_difference(files: list[str], answers: Answers) -> None:
    answers.sums = merge([entry for entry in answers.entries[1:] if entry is not None])
    assert compared(files, answers).differing == ["the sums over all files"]


def test_what_did_not_come_back_is_lost(files: list[str], answers: Answers) -> None:
    answers.entries[1] = answers.sums = None
    answers.why = {
        files[1]: str(TaskFailedError("crashed too often", reason="crashed")),
        "the sums over all files": "lost as well",
    }
    report = compared(files, answers)
    assert report.lost == [
        f"{files[1]}: crashed too often",
        "the sums over all files: lost as well",
    ]
    assert not report.is_valid
