"""What a figure is measured on: an embedded coordinator, or a fleet that may be killed.

Owns the folders and processes of one family, and ends them. Connecting is given by the caller, so
that the bench uses what a user calls and names no adapter.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.coordinator.statedir import DATABASE
from holdfast.lab.bench.processes import Crew, crew_of
from holdfast.lab.cluster import Cluster, descendants, is_zombie_or_gone
from holdfast.lab.witness import Run, WitnessReader
from holdfast.lab.workloads.plain import hold, noop
from holdfast.model.task import State
from holdfast.transports import endpoint

if TYPE_CHECKING:
    from holdfast.client.client import Client
    from holdfast.client.future import Future

WAIT_SECONDS = 60.0
"""Whatever takes longer than this has failed."""
_MAP_SECONDS = 120.0
_HOLD_SECONDS = 600.0
_WARM_TASKS = 2_000
_POLL_SECONDS = 0.005


class Connect(Protocol):
    """`holdfast.connect`, as a user calls it."""

    def __call__(self, url: str | None = None, *, state_dir: Path | None = None) -> Client:
        """Connect to a URL, or to the embedded coordinator of a folder."""
        ...


class Store:
    """What the database of a coordinator holds, read beside it."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / DATABASE

    def commits(self) -> int:
        """Return the number of the newest turn: each commit is one."""
        return self._one("SELECT turn FROM meta")

    def rows(self) -> int:
        """Return how many tasks there are, however far they are."""
        return self._one("SELECT count(*) FROM tasks")

    def settled(self) -> int:
        """Return how many tasks have succeeded."""
        return self._one("SELECT count(*) FROM tasks WHERE state = ?", State.SUCCEEDED.value)

    def tokens_and_results(self) -> tuple[int, int]:
        """Return how many distinct tokens, and how many results, the succeeded tasks have."""
        where = f"FROM tasks WHERE state = {State.SUCCEEDED.value}"
        tokens = self._one(f"SELECT count(DISTINCT token) {where}")
        return tokens, self._one(f"SELECT count(*) {where} AND result_encoding > 0")

    def _one(self, sql: str, *parameters: Any) -> int:
        uri = f"{self._path.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=WAIT_SECONDS)) as connection:
            return int(connection.execute(sql, parameters).fetchone()[0])


@dataclass(frozen=True, slots=True)
class Embedded:
    """An embedded coordinator with the defaults that a user gets, warm."""

    client: Client
    state_dir: Path
    store: Store
    crew: Crew


class Fleet:
    """A coordinator and workers of its own, whose running tasks a witness sees."""

    def __init__(self, cluster: Cluster, client: Client) -> None:
        self.cluster = cluster
        self.client = client
        self.store = Store(cluster.state_dir.resolve())
        self.witness = WitnessReader(cluster.directory / "witness")
        self._gates = 0

    def hold(self) -> tuple[Future[int], Path]:
        """Submit a task that runs until the file, which is returned with it, is there."""
        self._gates += 1
        gate = self.cluster.directory / f"gate-{self._gates}"
        return self.client.submit(hold, self.witness.path, str(gate), _HOLD_SECONDS), gate

    def begun(self, task: str, times: int) -> list[Run]:
        """Wait until a task has begun so many times, and return its runs."""
        self.witness.wait_until(
            f"task {task} has begun {times} times",
            lambda seen: seen.begun_count(task) >= times,
            timeout_seconds=WAIT_SECONDS,
        )
        return self.witness.runs(task)

    def begun_twice(self) -> int:
        """Return how many tasks have begun more than once."""
        return len(self.witness.begun_twice())

    def wait_connected(self) -> None:
        """Wait until every worker, in its present life, is connected."""
        wanted = {self.cluster.worker_pid(name) for name in self.cluster.workers}

        def all_connected() -> bool:
            told = self.client.workers()
            return wanted <= {each["pid"] for each in told if each["state"] == "connected"}

        wait_until("the workers are connected", all_connected)

    def crew(self, worker: str) -> Crew:
        """Return the processes of the coordinator and of one worker."""
        return crew_of(self.cluster.coordinator_pid, self.cluster.worker_pid(worker))


@dataclass(frozen=True, slots=True)
class Bench:
    """How the figures are measured. `quick` takes fewer and smaller rounds, for a first look."""

    connect: Connect
    directory: Path
    quick: bool = False
    tell: Callable[[str], None] = lambda text: None

    @property
    def rounds(self) -> int:
        """How many rounds a figure is measured."""
        return 2 if self.quick else 5

    def sized(self, full: int, quick: int) -> int:
        """Return a size as the mode wants it."""
        return quick if self.quick else full

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Give a fresh folder, and remove it."""
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.directory) as folder:
            yield Path(folder)

    @contextmanager
    def embedded(self) -> Iterator[Embedded]:
        """Give an embedded coordinator that has run some tasks, and end it."""
        with (
            self.folder("embedded") as state_dir,
            ended_after(state_dir),
            self.connect(state_dir=state_dir) as client,
        ):
            warm(client)
            told = endpoint.read(state_dir)
            assert told is not None, "we are connected to it"
            workers = [each["pid"] for each in client.workers()]
            crew = crew_of(told.pid, workers[0])
            yield Embedded(client, state_dir, Store(state_dir), crew)

    @contextmanager
    def fleet(self, *, workers: int, slots: int, words: Sequence[str] = ()) -> Iterator[Fleet]:
        """Give a fleet that has run some tasks, and end it; `words` are for its workers."""
        with self.folder("fleet") as folder, Cluster(folder) as cluster:
            cluster.start_coordinator()
            for number in range(workers):
                cluster.start_worker(f"worker-{number}", "--slots", str(slots), *words)
            with self.connect(cluster.url) as client:
                fleet = Fleet(cluster, client)
                fleet.wait_connected()
                warm(client)
                yield fleet


def warm(client: Client) -> None:
    """Run some tasks, so that nothing is measured that happens once."""
    for _ in mapped(client, noop, range(_WARM_TASKS)):
        pass


def mapped(client: Client, function: Callable[..., Any], rows: Iterable[Any]) -> Iterator[Any]:
    """Map as a user does, but not for ever. The iterator raises TimeoutError."""
    return client.map(function, rows, timeout=_MAP_SECONDS)


@contextmanager
def ended_after(state_dir: Path) -> Iterator[None]:
    """End the embedded coordinator of a folder afterwards, and wait until all of it is gone."""
    try:
        yield
    finally:
        told = endpoint.read(state_dir)
        if told is not None and endpoint.lives(state_dir):
            pids = [told.pid, *descendants(told.pid)]
            os.kill(told.pid, signal.SIGTERM)
            # A zombie may still have threads; the lock is free when the last of them is gone.
            wait_until(
                "the coordinator is gone",
                lambda: all(map(is_zombie_or_gone, pids)) and not endpoint.lives(state_dir),
            )


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    """Poll until a condition holds. Raises TimeoutError, which names it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {WAIT_SECONDS:g} s in vain until {what}")
        time.sleep(_POLL_SECONDS)
