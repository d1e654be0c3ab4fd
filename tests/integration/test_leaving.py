"""How a worker leaves in good order, and who may not come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import Eventually
from tests.integration import bodies
from tests.integration.conftest import ROOT, Seen, StartFleet

_WORKER_SECONDS = 20


def test_a_worker_that_is_told_to_stop_finishes_what_runs(
    start_fleet: StartFleet, seen: Seen, tmp_path: Path, eventually: Eventually
) -> None:
    fleet = start_fleet()
    fleet.work("first", "--slots", "1")
    release = tmp_path / "release"
    # The first one teaches how short these tasks are, so that more than one is ordered ahead.
    assert fleet.client.submit(bodies.seen, 0, seen.path).result(20) == 0
    running = fleet.client.submit(bodies.hold, 1, seen.path, str(release))
    seen.until_busy(running.id)
    waiting = [fleet.client.submit(bodies.seen, n, seen.path) for n in range(20)]
    waiting[-1].wait_accepted(10)
    pid = fleet.cluster.worker_pid("first")
    os.kill(pid, signal.SIGTERM)
    fleet.work("second", "--slots", "1")
    assert [future.result(20) for future in waiting] == list(range(20))
    (run,) = seen.runs_of(running.id)
    assert fleet.cluster.worker_of(run.pid) == "first"
    assert not running.done()
    for future in waiting:
        assert len(seen.runs_of(future.id)) == 1
    release.touch()
    assert running.result(10) == 1
    assert len(seen.runs_of(running.id)) == 1
    eventually("the worker has left", lambda: names(fleet.client.workers()) == ["second"])


def names(workers: object) -> list[str]:
    assert isinstance(workers, list)
    return sorted(worker["name"] for worker in workers)


def test_drain_from_the_command_line(
    start_fleet: StartFleet, seen: Seen, tmp_path: Path, eventually: Eventually
) -> None:
    fleet = start_fleet()
    fleet.work("old", "--slots", "1")
    release = tmp_path / "release"
    running = fleet.client.submit(bodies.hold, 1, seen.path, str(release))
    seen.until_busy(running.id)
    words = ("drain", "--url", fleet.cluster.url, "old")
    told = subprocess.run(
        [sys.executable, "-m", "holdfast", *words],
        capture_output=True,
        text=True,
        timeout=_WORKER_SECONDS,
        check=True,
    )
    assert "old is draining" in told.stdout
    waiting = fleet.client.submit(bodies.seen, 2, seen.path)
    waiting.wait_accepted(10)
    eventually("why says that it drains", lambda: "draining" in fleet.client.why(waiting.id)["why"])
    release.touch()
    assert running.result(10) == 1
    eventually("the worker has left", lambda: names(fleet.client.workers()) == [])
    fleet.work("new", "--slots", "1")
    assert waiting.result(20) == 2


def run_worker(home: Path, name: str, url: str) -> subprocess.CompletedProcess[str]:
    words = ("worker", "--url", url, "--name", name, "--home", str(home), "--slots", "1")
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *words],
        capture_output=True,
        text=True,
        timeout=_WORKER_SECONDS,
        check=False,
        cwd=ROOT,
    )


def test_a_home_is_for_one_worker(start_fleet: StartFleet, eventually: Eventually) -> None:
    fleet = start_fleet()
    fleet.work("only", "--slots", "1")
    eventually("it is there", lambda: names(fleet.client.workers()) == ["only"])
    again = run_worker(fleet.cluster.directory / "only", "only", fleet.cluster.url)
    assert again.returncode == 2
    assert "another worker runs with the state directory" in again.stderr
    assert "Traceback" not in again.stderr
    assert fleet.client.submit(bodies.add, 1, 2).result(10) == 3


def test_a_name_is_for_one_identity(
    start_fleet: StartFleet, tmp_path: Path, eventually: Eventually
) -> None:
    fleet = start_fleet()
    fleet.work("only", "--slots", "1")
    eventually("it is there", lambda: names(fleet.client.workers()) == ["only"])
    words = ("worker", "--url", fleet.cluster.url, "--name", "only", "--home", str(tmp_path / "w"))
    log = tmp_path / "log"
    with log.open("wb") as out:
        other = subprocess.Popen([sys.executable, "-m", "holdfast", *words], stderr=out, cwd=ROOT)
    try:
        eventually(
            "the other one is told why it is refused",
            lambda: "a worker of another identity has the name 'only'" in log.read_text(),
        )
        assert fleet.client.submit(bodies.add, 1, 2).result(10) == 3
        assert len(fleet.client.workers()) == 1
    finally:
        other.terminate()
        other.wait(_WORKER_SECONDS)


def test_a_new_life_of_a_worker_replaces_the_old_one(
    start_fleet: StartFleet, seen: Seen, eventually: Eventually
) -> None:
    fleet = start_fleet()
    fleet.work("phoenix", "--slots", "1")
    future = fleet.client.submit(bodies.seen, 5, seen.path, 1.5)
    seen.until_busy(future.id)
    fleet.cluster.kill_worker("phoenix")
    fleet.cluster.start_worker("phoenix")
    assert future.result(20) == 5
    assert [run.fence for run in seen.runs_of(future.id)] == [1, 2]
    eventually("there is one of it", lambda: names(fleet.client.workers()) == ["phoenix"])
