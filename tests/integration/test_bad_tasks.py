"""Tasks that behave badly: each ends with a clear word, and the others go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.client.calls import Options, call_by_name
from holdfast.errors import NotSerializableError, TaskFailedError
from holdfast.lab.cluster import is_zombie_or_gone
from tests.conftest import Eventually
from tests.integration import bodies
from tests.integration.conftest import ROOT, Fleet, Seen, StartFleet, forget_peak, peak_mb


def supervisors(fleet: Fleet) -> list[int]:
    return [fleet.cluster.worker_pid(name) for name in fleet.cluster.workers]


def test_a_task_that_segfaults_for_ever_ends(fleet: Fleet, seen: Seen) -> None:
    before = supervisors(fleet)
    poison = fleet.client.submit(bodies.crash, seen.path)
    others = [fleet.client.submit(bodies.add, n, n) for n in range(50)]
    with pytest.raises(TaskFailedError) as failed:
        poison.result(20)
    assert failed.value.reason == "crashed"
    assert "SIGSEGV" in str(failed.value)
    assert "about to touch what is not ours" in str(failed.value)
    assert [run.fence for run in seen.runs_of(poison.id)] == [1, 2, 3, 4]
    assert [future.result(10) for future in others] == [2 * n for n in range(50)]
    assert fleet.client.why(poison.id)["why"].startswith("failed: crashed")
    assert supervisors(fleet) == before
    assert not any(map(is_zombie_or_gone, before))


@pytest.mark.parametrize("above", ["", "holdfast-nurse", "holdfast-guard"])
def test_a_task_that_kills_what_is_above_it_ends_and_costs_nobody_else(
    start_fleet: StartFleet, seen: Seen, tmp_path: Path, above: str
) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "2")
    fleet.work("two", "--slots", "2")
    release = tmp_path / "release"
    others = [fleet.client.submit(bodies.hold, n, seen.path, str(release)) for n in range(3)]
    seen.until_busy(*(future.id for future in others))
    before = supervisors(fleet)
    poison = fleet.client.submit(bodies.kill_above, above)
    with pytest.raises(TaskFailedError) as failed:
        poison.result(40)
    assert failed.value.reason == "crashed"
    release.touch()
    assert [future.result(20) for future in others] == [0, 1, 2]
    for future in others:
        charges = fleet.client.status(future.id)["charges"]
        assert (charges["crashes"], charges["losses"]) == (0, 0)
    assert supervisors(fleet) == before
    assert not any(map(is_zombie_or_gone, before))


def test_a_task_that_stops_the_loop_of_others_ends_and_costs_nobody_else(
    start_fleet: StartFleet, seen: Seen
) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "1")
    others = [fleet.client.submit(bodies.seen_to_sleep, n, seen.path, 0.7) for n in range(3)]
    seen.until_busy(*(future.id for future in others))
    poison = fleet.client.submit(bodies.stop_loop)
    assert [future.result(20) for future in others] == [0, 1, 2]
    with pytest.raises(TaskFailedError, match="event loop") as failed:
        poison.result(20)
    assert failed.value.reason == "crashed"
    charges = [fleet.client.status(future.id)["charges"] for future in others]
    assert [(each["crashes"], each["losses"]) for each in charges] == [(0, 0)] * 3


def test_a_task_that_exits_ends(fleet: Fleet) -> None:
    with pytest.raises(TaskFailedError, match="exit") as failed:
        fleet.client.submit(bodies.leave, 3).result(20)
    assert failed.value.reason == "crashed"
    assert "3" in str(failed.value)
    assert fleet.client.submit(bodies.add, 1, 1).result(10) == 2


def test_a_task_that_leaves_children_behind(
    start_fleet: StartFleet, tmp_path: Path, eventually: Eventually
) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "1")
    pids = tmp_path / "pids"
    fleet.client.submit(bodies.brood, str(pids)).result(20)
    assert fleet.client.submit(bodies.add, 1, 1).result(10) == 2
    brood = [int(pid) for pid in pids.read_text().split()]
    os.kill(fleet.cluster.worker_pid("one"), 15)
    eventually(
        "they end with their worker, at the latest",
        lambda: all(map(is_zombie_or_gone, brood)),
        within_seconds=5,
    )


def test_a_task_that_keeps_memory(start_fleet: StartFleet) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "1", "--recycle-memory", "200")
    pids = [fleet.client.submit(bodies.hoard, 120).result(20) for _ in range(6)]
    # The second one brings its process above the bound.
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]


def test_what_many_tasks_leave_in_a_process_goes_with_it(start_fleet: StartFleet) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "1", "--recycle-tasks", "3")
    pids = [fleet.client.submit(bodies.hoard, 0).result(20) for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_a_task_that_prints_megabytes(fleet: Fleet) -> None:
    assert fleet.client.submit(bodies.prattle, 4).result(30) == 4
    assert fleet.client.submit(bodies.add, 1, 1).result(10) == 2


def test_a_task_that_closes_its_streams(fleet: Fleet) -> None:
    assert [fleet.client.submit(bodies.deaf_and_dumb).result(20) for _ in range(4)] == [
        "went on"
    ] * 4
    # Whoever comes after it in the same slot finds streams that work.
    assert [fleet.client.submit(bodies.prattle, 0).result(20) for _ in range(4)] == [0] * 4


def test_a_result_that_is_too_large(start_fleet: StartFleet) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "1")
    child = fleet.client.submit(os.getpid).result(20)
    supervisor = fleet.cluster.worker_pid("one")
    bystanders = {"coordinator": fleet.cluster.coordinator_pid, "supervisor": supervisor}
    for pid in (*bystanders.values(), child):
        forget_peak(pid)
    held = {name: peak_mb(pid) for name, pid in bystanders.items()}
    future = fleet.client.submit(bodies.much, 1024)
    with pytest.raises(Exception, match="result came to more than 536870912 bytes"):
        future.result(45)
    status = fleet.client.status(future.id)
    assert (status["state"], status["reason"]) == ("failed", "invalid")
    # Its child has held it, once: what would be seen of it elsewhere is seen here.
    assert 1024 < peak_mb(child) < 1024 + 128
    grown = {name: peak_mb(pid) - held[name] for name, pid in bystanders.items()}
    assert max(grown.values()) < 20, grown
    assert fleet.client.submit(os.getpid).result(10) == child
    assert fleet.cluster.worker_pid("one") == supervisor
    assert not is_zombie_or_gone(supervisor)


def test_a_module_that_no_worker_can_import(
    start_fleet: StartFleet, eventually: Eventually
) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "1")
    words = [sys.executable, "-m", "holdfast", "submit", "--url", fleet.cluster.url]
    told = subprocess.run(
        [*words, "no_such_module_here:run"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    task = told.stdout.strip()
    eventually(
        "why names the module",
        lambda: "no_such_module_here" in fleet.client.why(task)["why"],
        within_seconds=15,
    )
    fleet.work("two", "--slots", "1")
    with pytest.raises(Exception, match="no_such_module_here"):
        # Of 1, 2, 4, 8 and 16 seconds some are waited for, by when the second worker came.
        fleet.client.future(task).result(40)
    status = fleet.client.status(task)
    assert (status["state"], status["reason"]) == ("failed", "environment")
    assert status["charges"]["environment"] == 6


def test_what_no_worker_can_run_keeps_nothing_waiting(
    start_fleet: StartFleet, eventually: Eventually
) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "2")
    call = call_by_name("no_such_module_here:run", Options())
    lacking = [fleet.client.start(call, (), {}) for _ in range(300)]
    good = fleet.client.submit(bodies.add, 1, 2)
    # All that is before it is tried once and, it may be, again; the last time is after 31 seconds.
    assert good.result(15) == 3
    eventually(
        "why tells what it waits for",
        lambda: "and there is no other); tried again in" in fleet.client.why(lacking[-1].id)["why"],
        within_seconds=8,
    )


def test_a_result_that_does_not_serialise(fleet: Fleet) -> None:
    future = fleet.client.submit(bodies.in_result)
    with pytest.raises((TaskFailedError, NotSerializableError), match="lock"):
        future.result(10)
    status = fleet.client.status(future.id)
    assert (status["state"], status["reason"]) == ("failed", "invalid")


def test_an_exception_that_does_not_serialise_still_tells(fleet: Fleet) -> None:
    with pytest.raises(ValueError, match="with a socket"):
        fleet.client.submit(bodies.in_exception).result(10)


def test_a_stream_that_nobody_reads_slows_who_prints_and_nobody_else(
    start_fleet: StartFleet, seen: Seen, eventually: Eventually
) -> None:
    fleet = start_fleet(lease_seconds=2.0)
    client, home = fleet.client, fleet.cluster.directory / "unread"

    def state_of(pid: int) -> str:
        return next((str(each["state"]) for each in client.workers() if each["pid"] == pid), "")

    words = ("worker", "--url", fleet.cluster.url, "--home", str(home), "--path", ROOT)
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "holdfast", *words, "--slots", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert worker.stdout is not None
    try:
        printing = client.submit(bodies.prattle, 8)
        # Longer than a lease: who is silent meanwhile has lost it.
        assert client.submit(bodies.seen, 1, seen.path, 3.0).result(20) == 1
        assert not printing.done()
        pieces = 8 * 512 + 1
        assert worker.stdout.read(pieces * 1024) == (b"x" * 1023 + b"\n") * pieces
        assert printing.result(10) == 8
        stuck = client.submit(bodies.prattle, 8)
        assert client.submit(bodies.seen, 2, seen.path, 3.0).result(20) == 2
        for future in (printing, stuck):
            assert "worker silent" not in [line["what"] for line in client.story(future.id)]
        # The second one asks it not to wait for what runs.
        worker.terminate()
        eventually("it leaves", lambda: state_of(worker.pid) == "draining")
        worker.terminate()
        assert worker.wait(10) == 0
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
    assert stuck.cancel()
