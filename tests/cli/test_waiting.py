"""Who waits for a task is told why, once for each reason, and is never held up by that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.cli import waiting
from holdfast.errors import RefusedError
from tests.cli.conftest import CommandLine, Said
from tests.conftest import Eventually

NOBODY = {"state": "queued", "why": "queued: no worker is connected", "due_ms": 0}


def unable(times: str, seconds: str) -> dict[str, Any]:
    again = f"; tried again in {seconds} s" if seconds else ""
    return NOBODY | {"why": f"queued: worker w cannot run it: no m:g (tried {times}){again}"}


def runs(seconds: str) -> dict[str, Any]:
    return NOBODY | {"state": "running", "why": f"started on worker w for {seconds} s (run 1)"}


class Task:
    """A task that ends once all answers were given; `asked` counts them."""

    id = "01-x"

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers = list(answers)
        self._told = threading.Event()

    def why(self, task: str) -> dict[str, Any]:
        assert task == self.id
        if not self._answers:
            # What was answered before has been said by now.
            self._told.set()
            return NOBODY | {"why": "too late"}
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait_accepted(self, timeout: float | None) -> None:
        return

    def wait_done(self, timeout: float | None) -> None:
        assert self._told.wait(20)

    def result(self) -> int:
        return 1


@pytest.fixture
def wait(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    monkeypatch.setattr(waiting, "_ASK_SECONDS", 0.001)

    def waited(*words: str, task: Any, held_back: Any = "") -> Said:
        return cli(
            *words,
            why=task.why,
            start=lambda *_: task,
            future=lambda _: task,
            held_back=held_back,
        )

    return waited


def lines(said: Said) -> list[str]:
    return [line for line in said.err.splitlines() if "too late" not in line]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([NOBODY, NOBODY], [NOBODY["why"]]),
        (
            [NOBODY, unable("once", "1.0"), unable("once", ""), unable("2 times", "1.9")],
            [NOBODY["why"], unable("once", "1.0")["why"]],
        ),
        ([runs("2.0"), runs("4.0")], []),
        ([NOBODY, runs("0.5"), runs("2.5")], [NOBODY["why"], runs("0.5")["why"]]),
        ([RefusedError("not now", code="x"), TimeoutError("late"), NOBODY], [NOBODY["why"]]),
    ],
)
def test_each_reason_is_said_once(
    answers: list[dict[str, Any] | Exception], told: list[str], wait: Callable[..., Said]
) -> None:
    expected = [f"holdfast: {line}" for line in told]
    said = wait("result", "01", "--json", task=Task(*answers))
    assert (lines(said), said.out) == (expected, '{"id": "01-x", "result": 1}\n')
    said = wait("submit", "m:g", "--wait", task=Task(*answers))
    assert (lines(said), said.out) == (["task 01-x", *expected], "1\n")


def test_a_task_that_waits_for_its_time_says_when(wait: Callable[..., Said]) -> None:
    due = NOBODY | {"why": "starts in 9.0 s", "due_ms": 1_000}
    assert ", at 19" in wait("result", "01", task=Task(due)).err


def test_nobody_is_asked_while_no_coordinator_is_reached(
    wait: Callable[..., Said],
    capsys: pytest.CaptureFixture[str],
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = Task(RefusedError("kept until one is back", code="x"))
    seen: list[str] = []

    def said(_timeout: float | None) -> None:
        eventually("it is said", lambda: seen.append(capsys.readouterr().err) or any(seen))

    monkeypatch.setattr(task, "wait_done", said)
    wait("result", "01", task=task, held_back="the coordinator is not reached")
    assert "".join(seen) == "holdfast: the coordinator is not reached\n"


def test_an_answer_that_does_not_come_holds_nobody_up(
    wait: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, over = threading.Event(), threading.Event()
    task = Task()

    def late(_task: str) -> dict[str, Any]:
        asked.set()
        over.wait(20)
        return NOBODY

    def done(_timeout: float | None) -> None:
        assert asked.wait(20)

    monkeypatch.setattr(task, "why", late)
    monkeypatch.setattr(task, "wait_done", done)
    before = threading.active_count()
    said = wait("result", "01", task=task)
    assert (said.code, said.out, said.err) == (0, "1\n", "")
    over.set()
    for thread in threading.enumerate():
        # So has the timer that watched the connecting, which was told to end a moment ago.
        if thread.name == "holdfast-why" or isinstance(thread, threading.Timer):
            thread.join(20)
    assert threading.active_count() <= before
