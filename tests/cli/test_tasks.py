"""Commands about tasks, against a scripted client."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import tasks
from holdfast.cli.app import Exit
from holdfast.errors import (
    ConnectionLostError,
    InvalidInputError,
    RefusedError,
    ResultUnreadableError,
    UnknownTaskError,
)
from tests.cli.conftest import CommandLine

TOLD = {
    "id": "01-x",
    "state": "failed",
    "reason": "error",
    "function": "m:f",
    "queue": "default",
    "tags": [],
    "priority": 0,
    "key": "",
    "meta": {"run": "7"},
    "wanted": "run",
    "run": 2,
    "worker": "w",
    "submitted_ms": 1,
    "due_ms": 0,
    "claimed_ms": 2,
    "started_ms": 3,
    "ended_ms": 4,
    "charges": {"retries": 1, "losses": 0},
    "error": "no",
    "error_type": "ValueError",
    "traceback": "Traceback:\nValueError: no\n",
    "evidence": "",
}


class Future:
    """A future with a scripted end."""

    id = "01-x"

    def __init__(self, end: Callable[[], Any], *, done: bool = True) -> None:
        self._end = end
        self._done = done

    def wait_done(self, timeout: float | None) -> None:
        if not self._done:
            raise TimeoutError("it goes on")

    def result(self) -> Any:
        return self._end()

    def wait_accepted(self, timeout: float | None) -> None:
        return


def failing(error: Exception) -> Callable[[], Any]:
    def end() -> Any:
        raise error

    return end


# submit


def test_submit_prints_the_id(cli: CommandLine) -> None:
    given: list[Any] = []

    def start(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future:
        given.extend((call.options, args, kwargs))
        return Future(lambda: None)

    words = ["submit", "m:größe", "--args", '["ä", 1]', "--kwargs", '{"k": null}', "--key", "a b"]
    assert cli(*words, start=start).out == "01-x\n"
    assert given[0].key == "a b"
    assert given[1:] == [("ä", 1), {"k": None}]
    assert json.loads(cli(*words, "--json", start=start).out) == {"id": "01-x"}


@pytest.mark.parametrize(
    "words",
    [
        ("--args", "[1"),
        ("--args", "{}"),
        ("--args", "[NaN]"),
        ("--args", "[-Infinity]"),
        ("--args", "[" * 100_000),
        ("--kwargs", "[]"),
        ("--timeout", "-1"),
        ("--priority", "much"),
    ],
)
def test_what_is_not_what_an_option_holds_is_refused_before_anything_starts(
    words: tuple[str, ...], cli: CommandLine
) -> None:
    said = cli("submit", "m:f", *words)
    assert said.code == Exit.USAGE
    assert words[0] in said.err
    assert said.out == ""
    assert cli.where == []


def test_submit_can_wait_and_ends_like_result(cli: CommandLine) -> None:
    said = cli("submit", "m:f", "--wait", start=lambda *_: Future(lambda: [1]))
    assert (said.code, said.out, said.err) == (0, "[1]\n", "task 01-x\n")
    failed = Future(failing(ValueError("no")))
    said = cli("submit", "m:f", "--wait", start=lambda *_: failed, status=lambda _: TOLD)
    assert said.code == Exit.FAILED
    assert "cli" not in said.err, "our own frames are nothing to show"


# result


@pytest.mark.parametrize(
    ("error", "told", "code", "last_line"),
    [
        (ValueError("no"), TOLD, Exit.FAILED, "task 01-x failed: error"),
        (TimeoutError("its own"), TOLD, Exit.FAILED, "task 01-x failed: error"),
        (UnknownTaskError("its own"), TOLD, Exit.FAILED, "task 01-x failed: error"),
        (ResultUnreadableError("its own"), TOLD, Exit.FAILED, "task 01-x failed: error"),
        (ConnectionLostError("its own"), TOLD, Exit.FAILED, "task 01-x failed: error"),
        (
            ResultUnreadableError("task 01-x succeeded, but"),
            TOLD | {"state": "succeeded"},
            Exit.UNREADABLE,
            "holdfast: task 01-x succeeded, but",
        ),
        (
            ConnectionLostError("cut off"),
            TOLD | {"state": "running"},
            Exit.NO_COORDINATOR,
            "holdfast: cut off",
        ),
        (
            RuntimeError("cancelled"),
            TOLD | {"state": "cancelled", "traceback": "", "error": ""},
            Exit.CANCELLED,
            "task 01-x was cancelled",
        ),
        (
            ImportError("no module here"),
            TOLD | {"state": "succeeded"},
            Exit.UNREADABLE,
            (
                "holdfast: task 01-x succeeded, but its result cannot be loaded here: "
                "ImportError: no module here"
            ),
        ),
    ],
)
def test_how_a_task_ended_is_the_exit_code(
    error: Exception, told: dict[str, Any], code: Exit, last_line: str, cli: CommandLine
) -> None:
    future = Future(failing(error))
    said = cli("result", "01", future=lambda _: future, status=lambda _: told)
    assert said.code == code
    assert said.out == ""
    assert said.err.splitlines()[-1] == last_line
    assert not said.err.startswith("\n")


def test_a_result_may_be_of_a_class_of_this_folder(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kinds_of_this_folder.py").write_text("class Kind:\n    __repr__ = lambda s: 'K'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    future = Future(lambda: importlib.import_module("kinds_of_this_folder").Kind())
    assert cli("result", "01", future=lambda _: future).out == "K\n"
    monkeypatch.delitem(sys.modules, "kinds_of_this_folder")


def test_a_timeout_that_is_no_number_is_refused_before_anything_starts(cli: CommandLine) -> None:
    for words in (["result", "01"], ["submit", "m:f", "--wait"]):
        said = cli(*words, "--timeout", "nan")
        assert (said.code, cli.where) == (Exit.USAGE, [])
        assert "--timeout" in said.err


def test_a_timeout_without_a_wait_is_refused(cli: CommandLine) -> None:
    for words in (["--timeout", "1"], ["--timeout", "1", "--no-wait"]):
        said = cli("submit", "m:f", *words)
        assert (said.code, said.out, cli.where) == (Exit.USAGE, "", [])
        assert "give --wait too" in said.err
    done = Future(lambda: 1)
    assert cli("submit", "m:f", "--timeout", "1", "--wait", start=lambda *_: done).out == "1\n"


def test_a_failure_as_json_is_one_object(cli: CommandLine) -> None:
    future = Future(failing(ValueError("no")))
    said = cli("result", "01", "--json", future=lambda _: future, status=lambda _: TOLD)
    assert json.loads(said.out) == TOLD
    assert said.code == Exit.FAILED


def test_a_task_that_goes_on_and_one_that_is_unknown(cli: CommandLine) -> None:
    going = Future(lambda: None, done=False)
    assert cli("result", "01", "--timeout", "0", future=lambda _: going).code == Exit.UNFINISHED
    unknown = failing(UnknownTaskError("no task"))
    said = cli("result", "01", future=lambda _: Future(unknown), status=lambda _: unknown())
    assert said.code == Exit.UNKNOWN_TASK


# ls


def listing(count: int, *, too_large_above: int = 10_000) -> tuple[Callable[..., Any], list[int]]:
    """Return a scripted `list` over `count` tasks, and the sizes that it is asked for."""
    asked: list[int] = []

    def page(*, limit: int, before: str, **chosen: Any) -> list[dict[str, Any]]:
        asked.append(limit)
        if limit > too_large_above:
            raise RefusedError("too much", code="too_large")
        first = int(before) + 1 if before else 0
        return [TOLD | {"id": str(n)} for n in range(first, min(first + limit, count))]

    return page, asked


@pytest.mark.parametrize(
    ("count", "limit", "shown"), [(0, 50, 0), (500, 50, 50), (12_345, 11_000, 11_000), (7, 50, 7)]
)
def test_a_list_goes_over_as_many_pages_as_it_needs(
    count: int, limit: int, shown: int, cli: CommandLine
) -> None:
    page, _ = listing(count)
    told = json.loads(cli("ls", "--json", "--limit", str(limit), list=page).out)
    assert [task["id"] for task in told] == [str(n) for n in range(shown)]


def test_a_page_that_no_frame_holds_is_asked_in_parts(cli: CommandLine) -> None:
    page, asked = listing(60, too_large_above=20)
    assert len(json.loads(cli("ls", "--json", "--limit", "60", list=page).out)) == 60
    assert max(asked[asked.index(15) :]) <= 20
    page, _ = listing(60, too_large_above=0)
    assert cli("ls", list=page).code == Exit.REFUSED


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_that_cannot_be_is_refused(limit: str, cli: CommandLine) -> None:
    assert cli("ls", "--limit", limit).code == Exit.USAGE


def test_a_list_for_a_person(cli: CommandLine) -> None:
    page, _ = listing(2)
    lines = cli("ls", list=page).out.splitlines()
    assert [line.split()[:3] for line in lines] == [["0", "failed", "m:f"], ["1", "failed", "m:f"]]


# The others.


def test_status_shows_what_has_a_value(cli: CommandLine) -> None:
    text = cli("status", "01", status=lambda _: TOLD).out
    assert "retries 1" in text
    assert "losses" not in text
    assert "run=7" in text
    assert "priority" not in text
    assert json.loads(cli("status", "01", "--json", status=lambda _: TOLD).out) == TOLD


def test_cancel_tells_what_became_of_each(cli: CommandLine) -> None:
    states = {
        "a": {"id": "a", "state": "cancelled", "wanted": "cancel"},
        "b": {"id": "b", "state": "running", "wanted": "cancel"},
        "c": {"id": "c", "state": "succeeded", "wanted": "run"},
    }
    said = cli("cancel", "a", "b", "c", cancel=states.__getitem__)
    assert said.out == "a  cancelled\nb  being cancelled\nc  succeeded\n"
    said = cli("cancel", "a", "b", "--json", cancel=states.__getitem__)
    assert json.loads(said.out) == [states["a"], states["b"]]
    assert cli("cancel").code == Exit.USAGE


@pytest.mark.parametrize(
    ("errors", "asked", "code"),
    [
        (
            {"x": UnknownTaskError("no x"), "y": InvalidInputError("no y")},
            "axby",
            Exit.UNKNOWN_TASK,
        ),
        ({"x": InvalidInputError("no x")}, "axby", Exit.USAGE),
        # Here nobody can tell of the others.
        ({"x": ConnectionLostError("no x")}, "ax", Exit.NO_COORDINATOR),
        ({"x": TimeoutError("no x")}, "ax", Exit.UNFINISHED),
        ({"x": KeyboardInterrupt()}, "ax", Exit.INTERRUPTED),
    ],
)
def test_cancel_tells_what_became_of_the_others_where_one_is_none(
    errors: dict[str, BaseException], asked: str, code: Exit, cli: CommandLine
) -> None:
    heard: list[str] = []

    def wish(task: str) -> dict[str, str]:
        heard.append(task)
        if task in errors:
            raise errors[task]
        return {"id": task, "state": "cancelled", "wanted": "cancel", "said": "done"}

    told = [each for each in asked if each not in errors]
    said = cli("cancel", *"axby", cancel=wish)
    assert said.code == code
    assert said.out.splitlines() == [f"{each}  cancelled" for each in told]
    assert heard == list(asked)
    for error in errors.values():
        assert (f"holdfast: {error}\n" in said.err) is (code is not Exit.INTERRUPTED)
    said = cli("cancel", *"axby", "--json", cancel=wish)
    assert said.code == code
    assert [each["id"] for each in json.loads(said.out)] == told


def test_cancel_of_nothing_but_what_is_none_prints_nothing(cli: CommandLine) -> None:
    def wish(task: str) -> dict[str, str]:
        raise UnknownTaskError(task)

    for words in ((), ("--json",)):
        said = cli("cancel", "x", *words, cancel=wish)
        assert (said.code, said.out, said.err) == (Exit.UNKNOWN_TASK, "", "holdfast: x\n")


def test_a_story_is_told_in_order(cli: CommandLine) -> None:
    lines = [
        {"at_ms": 1000, "what": "submitted", "run": 0, "worker": "", "detail": "m:f"},
        {"at_ms": 1500, "what": "started", "run": 1, "worker": "w", "detail": "one\ntwo"},
    ]
    text = cli("story", "01", story=lambda _: lines).out
    assert "+0.500 s" in text
    assert "run 1  on w  one\n" in text
    assert json.loads(cli("story", "01", "--json", story=lambda _: lines).out) == lines
    assert cli("story", "01", story=lambda _: []).out == ""


def test_why_adds_the_local_time(cli: CommandLine) -> None:
    told = {"id": "x", "state": "queued", "why": "starts in 9.0 s", "due_ms": 1_000}
    assert ", at 19" in cli("why", "01", why=lambda _: told).out
    assert cli("why", "01", why=lambda _: told | {"due_ms": 0}).out == "starts in 9.0 s\n"
    assert json.loads(cli("why", "01", "--json", why=lambda _: told).out) == told


def test_the_finished_states_are_those_of_the_model() -> None:
    from holdfast.model.task import TERMINAL_MIN, State

    assert set(tasks._FINISHED) == {state.text for state in State if state >= TERMINAL_MIN}
