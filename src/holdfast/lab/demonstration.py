"""The main job under fire: a tree of files is indexed while children, workers and the coordinator
are killed, and every result is compared with the same work done in one plain process.

Kills strike only what the witness shows at work. The report tells what was killed, after how long
each interrupted task started again, and how many tasks began twice; nothing in it is assumed.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.lab.cluster import Cluster, boot_ns, descendants
from holdfast.lab.witness import Run, WitnessReader
from holdfast.lab.workloads.indexing import Entry, index_file, merge

if TYPE_CHECKING:
    from holdfast.client.client import Client

KINDS = ("child", "worker", "coordinator")
_PAUSE_SECONDS = 0.7
_RESULT_SECONDS = 120.0
_BUSY_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One blow: when it fell, on whom, and which of the processes it ended had run tasks."""

    kind: str
    name: str
    pid: int
    at_ns: int
    pids: tuple[int, ...] = ()
    struck: tuple[Run, ...] = ()


@dataclass(slots=True)
class Report:
    """What was seen. `begun_again_ms` is from the blow to the next begin, for each struck run."""

    files: int
    seconds: float = 0.0
    plain_seconds: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    begun_again_ms: dict[str, list[float]] = field(default_factory=dict)
    begun_twice: int = 0
    begun_twice_unstruck: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    sums: Entry = field(default_factory=dict)

    @property
    def is_valid(self) -> bool:
        """Whether every result is there and is what a plain process gives."""
        return not self.lost and not self.differing


def plain(files: Sequence[str]) -> tuple[list[Entry], Entry]:
    """Do the same work in one plain process."""
    entries = [index_file(path) for path in files]
    return entries, merge(entries)


class Nemesis:
    """Kills what works, one blow after another, until each kind was struck often enough."""

    def __init__(
        self,
        cluster: Cluster,
        witness: WitnessReader,
        *,
        blows_each: int,
        seed: int,
        tell: Callable[[Kill], None],
    ) -> None:
        self.kills: list[Kill] = []
        self.error: BaseException | None = None
        self._cluster = cluster
        self._witness = witness
        self._tell = tell
        rng = random.Random(seed)
        self._plan = [kind for kind in KINDS for _ in range(blows_each)]
        rng.shuffle(self._plan)
        self._rng = rng
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)

    def start(self) -> None:
        """Begin to strike, on a thread of its own."""
        self._thread.start()

    @property
    def strikes(self) -> bool:
        """Whether blows are still to fall."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Strike no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for kind in self._plan:
                if self._over.wait(_PAUSE_SECONDS):
                    return
                self._strike(kind)
        except BaseException as error:  # told to whoever joins
            self.error = error

    def _strike(self, kind: str) -> None:
        def has_prey(seen: WitnessReader) -> bool:
            return bool(seen.busy()) or self._over.is_set()

        self._witness.wait_until("a task runs", has_prey, timeout_seconds=_BUSY_SECONDS)
        busy = self._witness.busy()
        if not busy:
            return
        prey = self._rng.choice(busy)
        if kind == "coordinator":
            kill = Kill(kind, kind, self._cluster.kill_coordinator(), boot_ns())
            self._cluster.start_coordinator()
        elif kind == "worker":
            name = self._cluster.worker_of(prey.pid)
            if not name:
                return
            below = tuple(descendants(self._cluster.worker_pid(name)))
            kill = Kill(kind, name, self._cluster.kill_worker(name), boot_ns(), below)
            self._cluster.start_worker(name)
        else:
            os.kill(prey.pid, signal.SIGKILL)
            kill = Kill(kind, f"pid {prey.pid}", prey.pid, boot_ns(), (prey.pid,))
        self.kills.append(kill)
        self._tell(kill)


def run_under_fire(
    cluster: Cluster,
    client: Client,
    files: Sequence[str],
    *,
    witness: Path,
    blows_each: int,
    seed: int,
    done: Callable[[int], None],
    tell: Callable[[Kill], None],
) -> tuple[Report, list[Any], Any]:
    """Index the files and merge, with the nemesis at work. Returns the report and the results."""
    report = Report(files=len(files))
    begun = boot_ns()
    nemesis = Nemesis(cluster, WitnessReader(witness), blows_each=blows_each, seed=seed, tell=tell)
    futures = [client.submit(index_file, path, str(witness)) for path in files]
    nemesis.start()
    try:
        for number, future in enumerate(client.as_completed(futures), 1):
            del future
            done(number)
        # What is left of the plan falls on the same work, done once more.
        while nemesis.strikes:
            again = [client.submit(index_file, path, str(witness)) for path in files[:200]]
            for future in again:
                future.result(_RESULT_SECONDS)
    finally:
        nemesis.end()
    if nemesis.error is not None:
        raise nemesis.error
    entries = [future.result(_RESULT_SECONDS) for future in futures]
    sums = client.submit(merge, entries, str(witness)).result(_RESULT_SECONDS)
    report.seconds = (boot_ns() - begun) / 1e9
    report.kills = nemesis.kills
    _judge_runs(report, WitnessReader(witness))
    return report, entries, sums


def _judge_runs(report: Report, witness: WitnessReader) -> None:
    runs: dict[str, list[Run]] = {}
    for run in witness.runs():
        runs.setdefault(run.task, []).append(run)
    # An outcome that was not delivered when its process died is as good as a run that broke off.
    killed = {pid for kill in report.kills for pid in kill.pids}
    for number, kill in enumerate(report.kills):
        struck = tuple(
            run
            for each in runs.values()
            for run in each
            if run.pid in kill.pids and run.ended_ns is None
        )
        report.kills[number] = replace(kill, struck=struck)
        for run in struck:
            later = [each.begun_ns for each in runs[run.task] if each.fence > run.fence]
            if later:
                milliseconds = (min(later) - kill.at_ns) / 1e6
                report.begun_again_ms.setdefault(kill.kind, []).append(milliseconds)
    twice = [task for task, each in runs.items() if len(each) > 1]
    report.begun_twice = len(twice)
    report.begun_twice_unstruck = [
        task for task in twice if not any(run.pid in killed for run in runs[task])
    ]


def compare(report: Report, files: Sequence[str], entries: Sequence[Any], sums: Any) -> None:
    """Do the work once more in one plain process, and note where a result differs."""
    begun = boot_ns()
    # A process of its own, so that nothing of this one can help it.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        expected, expected_sums = pool.submit(plain, list(files)).result()
    report.plain_seconds = (boot_ns() - begun) / 1e9
    for path, given, wanted in zip(files, entries, expected, strict=True):
        if given is None:
            report.lost.append(path)
        elif given != wanted:
            report.differing.append(path)
    if sums != expected_sums:
        report.differing.append("the sums over all files")
    report.sums = sums
