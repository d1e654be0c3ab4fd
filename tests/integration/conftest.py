"""A fleet of real processes for these tests, and the witness of what their tasks did."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast import wiring
from holdfast.client.client import Client
from holdfast.lab.cluster import Cluster
from holdfast.lab.witness import Run, WitnessReader
from holdfast.transports import endpoint

ROOT = str(Path(__file__).resolve().parents[2])
_END_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Fleet:
    """A cluster, and a client of it."""

    cluster: Cluster
    client: Client

    def work(self, name: str, *words: str, url: str = "") -> None:
        """Start a worker that can import what these tests submit."""
        self.cluster.start_worker(name, "--path", ROOT, *words, url=url)


@dataclass(frozen=True, slots=True)
class Seen:
    """The witness of one test, under its own file."""

    path: str
    reader: WitnessReader

    def runs_of(self, task: str) -> list[Run]:
        return self.reader.runs(task)

    def until_busy(self, *tasks: str) -> list[Run]:
        """Wait until each of these tasks is at work; return their newest runs."""
        wanted = set(tasks)
        self.reader.wait_until(
            f"{len(wanted)} tasks are at work",
            lambda seen: wanted <= {run.task for run in seen.busy()},
            timeout_seconds=20,
        )
        at_work = {run.task: run for run in self.reader.busy()}
        return [at_work[task] for task in tasks]


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    return Seen(str(tmp_path / "witness"), WitnessReader(tmp_path / "witness"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two workers of two slots, shared by the tests of a module."""
    with Cluster(tmp_path_factory.mktemp("fleet")) as cluster:
        cluster.start_coordinator()
        with wiring.connect(cluster.url) as client:
            fleet = Fleet(cluster, client)
            fleet.work("one", "--slots", "2")
            fleet.work("two", "--slots", "2")
            yield fleet


def forget_peak(pid: int) -> None:
    """Let the high-water mark of a process's resident memory begin anew at what it holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """Return the high-water mark of a process's resident memory, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


StartFleet = Callable[..., Fleet]


@pytest.fixture
def start_fleet(tmp_path: Path) -> Iterator[StartFleet]:
    """Start a cluster of the test's own, without workers."""
    made: list[Fleet] = []

    def start(**settings: float) -> Fleet:
        cluster = Cluster(tmp_path / "cluster", **settings)
        cluster.__enter__()
        try:
            cluster.start_coordinator()
            made.append(Fleet(cluster, wiring.connect(cluster.url)))
        except BaseException:
            cluster.stop()
            raise
        return made[-1]

    yield start
    for fleet in made:
        fleet.client.close()
        fleet.cluster.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for an embedded coordinator, which is ended after the test with its workers."""
    yield tmp_path
    state_dir = tmp_path / ".holdfast"
    told = endpoint.read(state_dir)
    if told is None or not endpoint.lives(state_dir):
        return
    with wiring.connect(state_dir=state_dir) as client:
        for task in client.list(states=["queued", "running"]):
            client.cancel(task["id"])
        # A worker of a coordinator that was killed is not the next one's to end.
        workers = [worker["pid"] for worker in client.workers()]
    for pid in (told.pid, *workers):
        stop(pid)


def stop(pid: int) -> None:
    """SIGTERM to a process that may not be our child, and wait for its end."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        assert select.select([descriptor], [], [], _END_SECONDS)[0], f"process {pid} does not end"
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
