"""The loop of `holdfast top`: frames as they come, what goes wrong, and the end of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.cli import top
from holdfast.cli.app import Exit
from holdfast.errors import ConnectionLostError, RefusedError
from tests.cli.conftest import Client, CommandLine, Said

STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
FUNCTION = {"function": "m:f", "ended": 2, "failed": 1, "mean_ms": 1.0, "max_ms": 2}


def stats(succeeded: int) -> dict[str, Any]:
    tasks = dict.fromkeys(STATES, 0) | {"succeeded": succeeded}
    return {"tasks": tasks, "waiting": {}, "workers": 0, "clients": 1, "counters": {}}


class Coordinator:
    """Answers `stats` from a script. Once that is over it is `held_back`, and then comes Ctrl-C."""

    def __init__(self, *script: int | Exception, held_back: str = "") -> None:
        self._script = list(script)
        self._held_back = held_back
        self._looks_after = 0
        self._silent = threading.Event()
        self._ended = threading.Event()
        self.closed: list[float] = []

    def stats(self) -> dict[str, Any]:
        if not self._script:
            self._silent.set()
            assert self._ended.wait(20), "nobody closed the client"
            raise RefusedError("the client is closed", code="closed")
        told = self._script.pop(0)
        if isinstance(told, Exception):
            raise told
        return stats(told)

    def held_back(self) -> str:
        if not self._silent.is_set():
            return ""
        self._looks_after += 1
        if self._looks_after > 1:
            # What the look before this one told has been shown.
            raise KeyboardInterrupt
        return self._held_back

    def close(self, timeout: float) -> None:
        self.closed.append(timeout)
        self._ended.set()

    @property
    def methods(self) -> dict[str, Any]:
        return {
            "stats": self.stats,
            "workers": list,
            "functions": lambda: [FUNCTION],
            "close": self.close,
        }


Run = Callable[..., Said]


@pytest.fixture
def run(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(top, "_LOOK_SECONDS", 0.02)

    def play(coordinator: Coordinator, *words: str) -> Said:
        look = property(lambda _: coordinator.held_back())
        monkeypatch.setattr(Client, "held_back", look, raising=False)
        return cli("top", *words, **coordinator.methods)

    return play


def test_where_nobody_watches_one_frame_is_shown(cli: CommandLine) -> None:
    methods = Coordinator(7).methods
    said = cli("top", **methods)
    assert (said.code, said.err) == (Exit.OK, "")
    assert "succeeded 7" in said.out
    assert "m:f" in said.out
    for words in (("--json",), ("--once", "--json"), ("--once", "--json", "--interval", "1")):
        (line,) = cli("top", *words, **Coordinator(7).methods).out.splitlines()
        assert json.loads(line)["tasks"]["succeeded"] == 7
        assert json.loads(line)["rates"] == dict.fromkeys(("submitted", "succeeded", "failed"))


def test_an_interval_goes_on_until_ctrl_c(run: Run) -> None:
    coordinator = Coordinator(1, 2, 4)
    said = run(coordinator, "--interval", "0.1", "--json")
    assert (said.code, said.err) == (Exit.OK, "")
    told = [json.loads(line) for line in said.out.splitlines()]
    assert [each["tasks"]["succeeded"] for each in told] == [1, 2, 4]
    assert told[0]["rates"]["succeeded"] is None
    assert told[1]["rates"]["succeeded"] > 0
    assert coordinator.closed == [0]


def test_frames_follow_each_other_as_text(run: Run) -> None:
    said = run(Coordinator(1, 2), "--interval", "0.1")
    first, second = said.out.split("holdfast top")[1:]
    assert "succeeded 1 " in first
    assert "succeeded 2 " in second


def test_what_goes_wrong_is_said_once_and_it_goes_on(run: Run) -> None:
    coordinator = Coordinator(
        1,
        TimeoutError("no answer to 'stats' in 30 s"),
        TimeoutError("no answer to 'stats' in 30 s"),
        RefusedError("the store is busy", code="store"),
        2,
        held_back="the coordinator is not reached",
    )
    said = run(coordinator, "--interval", "0.1", "--json")
    assert said.code == Exit.OK
    assert said.err.splitlines() == [
        "holdfast: no answer to 'stats' in 30 s",
        "holdfast: the store is busy",
        "holdfast: the coordinator answers again",
        "holdfast: the coordinator is not reached",
    ]
    assert len(said.out.splitlines()) == 2


def test_the_end_of_the_client_is_an_error(run: Run) -> None:
    said = run(Coordinator(1, ConnectionLostError("it is gone")), "--interval", "0.1", "--json")
    assert said.code == Exit.NO_COORDINATOR
    assert said.err == "holdfast: it is gone\n"


def test_one_look_that_fails_is_an_error(cli: CommandLine) -> None:
    late = Coordinator(TimeoutError("no answer"))
    assert cli("top", "--once", **late.methods).code == Exit.UNFINISHED


@pytest.mark.parametrize("words", [("--interval", "0"), ("--interval", "x"), ("now",)])
def test_what_cannot_be_is_refused(words: tuple[str, ...], cli: CommandLine) -> None:
    said = cli("top", *words)
    assert said.code == Exit.USAGE
    assert cli.where == []
