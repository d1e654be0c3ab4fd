"""A short look: it finds the coordinator that runs, starts none, and is never late."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from holdfast import wiring
from tests.conftest import Eventually

ASKED = [("stats", {}), ("workers", {})]
SECONDS = 20.0


def test_the_coordinator_of_a_folder_and_of_a_url_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [sys.executable, "-m", "holdfast", "coordinator", "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline().decode()
            url = next(word for word in told.split('"') if word.startswith("http://"))
            for place in (None, str(tmp_path / ".holdfast")):
                found = wiring.glance(None, place, ASKED, seconds=SECONDS)
                assert found is not None
                assert (found[0]["clients"], found[1]) == (1, [])
            assert wiring.glance(url, None, ASKED, seconds=SECONDS) is not None
            assert wiring.glance(url, None, [("nonsense", {})], seconds=SECONDS) is None
        finally:
            process.terminate()
    assert wiring.glance(None, None, ASKED, seconds=SECONDS) is None, "it is gone"


def test_none_is_started_and_nothing_is_made(tmp_path: Path) -> None:
    place = tmp_path / "state"
    assert wiring.glance(None, place, ASKED, seconds=SECONDS) is None
    assert not place.exists()


@pytest.mark.parametrize("url", ["", "nonsense", "http://127.0.0.1:9", "unix:/no/such"])
def test_what_is_no_coordinator_is_no_error(url: str) -> None:
    assert wiring.glance(url, None, ASKED, seconds=SECONDS) is None


def test_a_directory_that_was_deleted_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    assert wiring.glance(None, None, ASKED, seconds=SECONDS) is None
    assert wiring.glance(None, "a\0b", ASKED, seconds=SECONDS) is None


def test_who_does_not_answer_is_not_waited_for(eventually: Eventually) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        began = time.monotonic()
        assert wiring.glance(url, None, ASKED, seconds=0.05) is None
        assert time.monotonic() - began < SECONDS
    # Its own end is that of its dialling, which the closed socket brings.
    eventually("the look has ended", lambda: "holdfast-glance" not in threads())


def test_what_is_late_holds_up_no_end_of_python() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://localhost:{mute.getsockname()[1]}"
        program = (
            f"from holdfast import wiring; print(wiring.glance({url!r}, None, [], seconds=0.2))"
        )
        words = [sys.executable, "-W", "error", "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]
