"""What a death costs: of a child, of a worker, of a coordinator, and of a client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from holdfast.lab.cluster import descendants, is_zombie_or_gone
from tests.conftest import Eventually
from tests.integration import bodies
from tests.integration.conftest import ROOT, Fleet, Seen, StartFleet


def test_a_killed_child_costs_only_its_own_task(fleet: Fleet, seen: Seen, tmp_path: Path) -> None:
    release = tmp_path / "release"
    futures = [fleet.client.submit(bodies.hold, n, seen.path, str(release)) for n in range(4)]
    struck, *others = seen.until_busy(*(future.id for future in futures))
    os.kill(struck.pid, signal.SIGKILL)
    seen.reader.wait_until("it begins again", lambda s: len(s.runs(struck.task)) == 2)
    release.touch()
    assert [future.result(10) for future in futures] == [0, 1, 2, 3]
    assert [len(seen.runs_of(run.task)) for run in others] == [1, 1, 1]
    assert fleet.client.status(struck.task)["charges"]["crashes"] == 1


def test_what_a_killed_child_started_is_gone_before_its_task_begins_again(
    start_fleet: StartFleet, tmp_path: Path, eventually: Eventually
) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "1")
    pids = tmp_path / "pids"
    future = fleet.client.submit(bodies.brood_and_wait, str(pids))
    eventually("the task has children", pids.exists, within_seconds=20)
    child, *brood = (int(pid) for pid in pids.read_text().split())
    pids.unlink()
    os.kill(child, signal.SIGKILL)
    eventually("the task begins again", pids.exists, within_seconds=20)
    assert all(map(is_zombie_or_gone, brood))
    assert future.cancel()


def test_a_killed_worker_leaves_no_process_behind(
    fleet: Fleet, tmp_path: Path, eventually: Eventually
) -> None:
    fleet.work("doomed", "--slots", "2", "--tags", "doomed")
    pids = tmp_path / "pids"
    future = fleet.client.submit(bodies.brood_and_wait, str(pids), tags=["doomed"])
    eventually("the task has children", pids.exists, within_seconds=20)
    brood = [int(pid) for pid in pids.read_text().split()]
    below = descendants(fleet.cluster.worker_pid("doomed"))
    assert len(brood) == 4
    assert set(brood) <= set(below)
    guards = [pid for pid in below if b"holdfast-guard" in name_of(pid)]
    fleet.cluster.kill_worker("doomed")
    eventually(
        "all that was below the worker is gone",
        lambda: all(is_zombie_or_gone(pid) for pid in below if pid not in guards),
        within_seconds=2,
    )
    eventually("its guard has gone too", lambda: all(map(is_zombie_or_gone, guards)))
    assert "doomed" in fleet.client.why(future.id)["why"]
    assert future.cancel()


def test_a_killed_guard_leaves_no_process_of_its_tasks(
    start_fleet: StartFleet, tmp_path: Path, eventually: Eventually
) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "1")
    pids = tmp_path / "pids"
    future = fleet.client.submit(bodies.brood_and_wait, str(pids))
    eventually("the task has children", pids.exists, within_seconds=20)
    brood = [int(pid) for pid in pids.read_text().split()]
    supervisor = fleet.cluster.worker_pid("one")
    (guard,) = (pid for pid in descendants(supervisor) if b"holdfast-guard" in name_of(pid))
    pids.unlink()
    os.kill(guard, signal.SIGKILL)
    eventually("the task begins again", pids.exists, within_seconds=20)
    assert all(map(is_zombie_or_gone, brood))
    assert not is_zombie_or_gone(supervisor)
    assert future.cancel()


def name_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/comm").read_bytes()


def test_what_a_killed_worker_ran_begins_elsewhere(fleet: Fleet, seen: Seen) -> None:
    fleet.work("fallen", "--slots", "1", "--tags", "mortal")
    fleet.work("heir", "--slots", "1", "--tags", "mortal")
    future = fleet.client.submit(bodies.seen, 7, seen.path, 2.0, tags=["mortal"])
    (run,) = seen.until_busy(future.id)
    fleet.cluster.kill_worker(fleet.cluster.worker_of(run.pid))
    assert future.result(20) == 7
    assert [each.fence for each in seen.runs_of(future.id)] == [1, 2]
    charges = fleet.client.status(future.id)["charges"]
    assert (charges["losses"], charges["crashes"]) == (1, 0)


def test_workers_go_on_without_a_coordinator(fleet: Fleet, seen: Seen, tmp_path: Path) -> None:
    release = tmp_path / "release"
    long = [fleet.client.submit(bodies.hold, n, seen.path, str(release)) for n in range(3)]
    seen.until_busy(*(future.id for future in long))
    fleet.cluster.kill_coordinator()
    fleet.cluster.start_coordinator()
    fleet.cluster.kill_coordinator()
    release.touch()
    seen.reader.wait_until(
        "the tasks end without a coordinator",
        lambda reader: all(run.ended_ns is not None for run in reader.runs()),
    )
    fleet.cluster.start_coordinator()
    assert [future.result(20) for future in long] == [0, 1, 2]
    assert [len(seen.runs_of(future.id)) for future in long] == [1, 1, 1]


def test_a_coordinator_that_was_stopped_loses_nobody(
    start_fleet: StartFleet, seen: Seen, tmp_path: Path
) -> None:
    """SIGSTOP for more than two leases: silence counts only while it listened."""
    fleet = start_fleet(lease_seconds=1.0)
    fleet.work("one", "--slots", "2")
    release = tmp_path / "release"
    futures = [fleet.client.submit(bodies.hold, n, seen.path, str(release)) for n in range(2)]
    seen.until_busy(*(future.id for future in futures))
    pid = fleet.cluster.coordinator_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        # The span of the stop is what is tested; the worker's pause is our clock.
        subprocess.run([sys.executable, "-c", "import time; time.sleep(2.5)"], check=True)
    finally:
        os.kill(pid, signal.SIGCONT)
    after = fleet.client.submit(bodies.add, 1, 2)
    release.touch()
    assert [future.result(20) for future in futures] == [0, 1]
    assert after.result(20) == 3
    assert [len(seen.runs_of(future.id)) for future in futures] == [1, 1]


_CLIENT = """
import sys
from holdfast import wiring
from tests.integration import bodies
url, witness, release = sys.argv[1:]
with wiring.connect(url) as client:
    future = client.submit(bodies.hold, 9, witness, release)
    future.wait_accepted(10)
    print(future.id, flush=True)
    future.result()
"""


def test_the_tasks_of_a_killed_client_finish(fleet: Fleet, seen: Seen, tmp_path: Path) -> None:
    release = tmp_path / "release"
    words = [sys.executable, "-c", _CLIENT, fleet.cluster.url, seen.path, str(release)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        task = client.stdout.readline().strip()
        seen.until_busy(task)
        client.kill()
    release.touch()
    assert fleet.client.future(task).result(10) == 9
    assert len(seen.runs_of(task)) == 1
