"""Settings travel to another process as they are, and what goes wrong there is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import CoordinatorSettings, WorkerSettings
from holdfast.errors import ConfigurationError
from holdfast.wiring import coordinator, launch, process, worker

COORDINATOR = CoordinatorSettings(
    state_dir=Path("/a b/ü"), embedded=True, workers=2, path=("/x", "/y z"), ready_fd=7
)
WORKER = WorkerSettings(
    urls=("unix:/s",), state_dir=Path("/home"), tags=("gpu",), embedded=True, log_to=Path("/log")
)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings that were run, instead of running them."""
    told: list[Any] = []
    monkeypatch.setattr(coordinator, "coordinate", told.append)
    monkeypatch.setattr(worker, "work", lambda settings, streams: told.append(settings))
    monkeypatch.setattr(process, "run", lambda main: None)
    monkeypatch.setattr(process, "log_to_stderr", lambda: None)
    return told


NOT_UTF8 = os.fsdecode(b"/bad\xff")
"""What Python makes of a directory whose name is not UTF-8."""


@pytest.mark.parametrize(
    "settings",
    [
        COORDINATOR,
        WORKER,
        CoordinatorSettings(state_dir=Path(NOT_UTF8), path=(NOT_UTF8, "/ü")),
        WorkerSettings(
            urls=(f"unix:{NOT_UTF8}/s",),
            state_dir=Path(NOT_UTF8),
            path=(NOT_UTF8,),
            log_to=Path(NOT_UTF8),
        ),
    ],
)
def test_settings_arrive_as_they_were(
    settings: CoordinatorSettings | WorkerSettings, ran: list[Any]
) -> None:
    words = launch.command(settings)
    assert launch.main(words[words.index(launch._BOOT) + 2 :]) == 0
    assert ran == [settings]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigurationError("no such port"), 2, "holdfast: no such port\n"),
        (KeyboardInterrupt, 130, ""),
    ],
)
def test_what_goes_wrong_is_an_exit_code(
    error: BaseException,
    code: int,
    said: str,
    ran: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(main: object) -> None:
        raise error

    monkeypatch.setattr(process, "run", fail)
    assert launch.main(launch.command(WORKER)[-2:]) == code
    assert capsys.readouterr().err == said


def test_files_of_the_user_do_not_hide_modules_from_us(tmp_path: Path) -> None:
    for name in ("random", "queue", "msgspec", "holdfast"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    settings = WorkerSettings(urls=("nonsense",), state_dir=tmp_path / "home")
    done = subprocess.run(
        launch.command(settings), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "url='nonsense'" in done.stderr
    assert launch.command(settings)[0] == sys.executable
