"""What a person is told who cannot be connected."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import wiring
from holdfast.errors import ConfigurationError, NoCoordinatorError
from holdfast.transports import endpoint
from tests.conftest import Eventually


def test_the_address_where_nobody_answers_is_named() -> None:
    named = r"http://127\.0\.0\.1:9: no coordinator .*Connect(ion refused| call failed)"
    with pytest.raises(NoCoordinatorError, match=named):
        wiring.connect("http://127.0.0.1:9", connect_seconds=0.1)


def test_a_directory_that_was_deleted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    with pytest.raises(ConfigurationError, match="was deleted"):
        wiring.connect()


@pytest.mark.parametrize("state_dir", ["\0", "a\0b", "\ud800"])
def test_a_directory_that_cannot_be_is_told(state_dir: str) -> None:
    with pytest.raises(ConfigurationError, match="state directory"):
        wiring.connect(state_dir=state_dir)


def test_a_store_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("by no means a database\n" * 100)
    with pytest.raises(NoCoordinatorError, match="not a database"):
        wiring.connect(state_dir=tmp_path)


def test_a_client_imports_no_server(tmp_path: Path) -> None:
    program = (
        "import sys, holdfast\n"
        "from holdfast.wiring.client import connect\n"
        "try:\n    connect('http://127.0.0.1:9', connect_seconds=0.01)\n"
        "except holdfast.NoCoordinatorError:\n    pass\n"
        "print([n for n in ('uvicorn', 'sqlite3', 'click', 'rich') if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "[]\n"


EDITED = """
import os
import holdfast, of_mine

with holdfast.connect() as hf:
    pids = set()
    for number in (1, 2, 3):
        with open("of_mine.py", "w") as file:
            file.write(f"import os\\ndef told():\\n    return {number}, os.getpid()\\n")
        os.utime("of_mine.py", (number, number))
        # The delay leaves the worker idle for longer than an edit takes.
        value, pid = hf.submit(of_mine.told, delay=0.4).result(30)
        assert value == number, (value, number)
        pids.add(pid)
    assert len(pids) == 3, pids
print("fresh")
"""


def test_an_edited_module_is_run_as_it_is_on_disk(tmp_path: Path, eventually: Eventually) -> None:
    (tmp_path / "of_mine.py").write_text("def told():\n    return 0\n")
    (tmp_path / "script.py").write_text(EDITED)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    state = tmp_path / ".holdfast"
    told = endpoint.read(state)
    if told is not None and endpoint.lives(state):
        os.kill(told.pid, signal.SIGTERM)
    eventually("the coordinator has ended", lambda: not endpoint.lives(state), within_seconds=30)
    assert (done.stdout, done.stderr) == ("fresh\n", "")
