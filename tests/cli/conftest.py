"""The command line, run in this process against a client that a test scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pytest

from holdfast import wiring
from holdfast.cli.app import run


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Client:
    """Has the methods that a test gives it."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        self.__dict__.update(methods)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return


class CommandLine:
    """Runs commands; `where` is what the last one connected to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.where: list[object] = []

    def __call__(self, *words: str, **methods: Callable[..., Any]) -> Said:
        def connect(url: object, *, state_dir: object) -> Client:
            self.where = [url, state_dir]
            return Client(**methods)

        self._monkeypatch.setattr(wiring, "connect", connect)
        self._monkeypatch.setattr(sys, "argv", ["holdfast", *words])
        code = run()
        told = self._capsys.readouterr()
        return Said(int(code), told.out, told.err)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)
