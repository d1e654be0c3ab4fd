"""Blows against a running cluster: whom they strike is chosen by seed, from what is at work.

Owns the order of the blows and the record of each: when it fell, on which processes, and which
were back when. It strikes children and workers only where the witness shows a run of a task that
was not struck before, never those on the spared list, and never judges what followed.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from holdfast.lab.cluster import Cluster, boot_ns, descendants
from holdfast.lab.faults.proxy_thread import ProxyThread
from holdfast.lab.faults.tcp import HalfOpen
from holdfast.lab.witness import Run, WitnessReader, may_live

BUSY_SECONDS = 20.0
CUT_SECONDS_MAX = 30.0
MISSES_MAX = 5
"""So often a task may end before the blow falls, until the blow is given up."""
YOUNG_NS = 500_000_000
"""A run that began so lately is not over before its worker is cut off."""
PAIR_NS_MAX = 100_000_000
"""Two blows within this span count as one upon another."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One blow. `pids` are the processes that it ended, or cut off until `healed_ns`.

    `target` is the run that was seen at work before it fell.
    """

    kind: str
    name: str
    at_ns: int
    pids: frozenset[int]
    target: Run | None = None
    healed_ns: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How many blows of each kind, and over how many seconds.

    `pairs` of the coordinator's blows fall right upon a blow against a child or a worker.
    """

    seconds: float
    children: int
    workers: int
    coordinators: int
    pairs: int = 0
    cuts: int = 0

    def blows(self, rng: random.Random) -> list[tuple[str, ...]]:
        """Return the kinds in the order of this seed; those of one entry fall at once."""
        children, workers = self.children, self.workers
        entries: list[tuple[str, ...]] = []
        for number in range(self.pairs):
            if number % 2 and children:
                entries.append(("child", "coordinator"))
                children -= 1
            else:
                entries.append(("worker", "coordinator"))
                workers -= 1
        entries += [("child",)] * children + [("worker",)] * workers
        entries += [("coordinator",)] * (self.coordinators - self.pairs)
        entries += [("cut",)] * self.cuts
        rng.shuffle(entries)
        return entries


class Striker:
    """Strikes on a thread of its own until the plan is done. `proxy` stands before `cut_name`."""

    def __init__(
        self,
        cluster: Cluster,
        witness: WitnessReader,
        plan: Plan,
        *,
        seed: int,
        spared: frozenset[str],
        tell: Callable[[Blow], None],
        proxy: ProxyThread | None = None,
        cut_name: str = "",
    ) -> None:
        self.blows: list[Blow] = []
        self.error: BaseException | None = None
        self._cluster = cluster
        self._witness = witness
        self._plan = plan
        self._rng = random.Random(seed)
        self._spared = spared
        self._tell = tell
        self._proxy = proxy
        self._cut_name = cut_name
        self._struck: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="striker", daemon=True)

    def start(self) -> None:
        """Begin to strike."""
        self._thread.start()

    @property
    def strikes(self) -> bool:
        """Whether blows are still to fall."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Strike no more; what is under way is finished."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            entries = self._plan.blows(self._rng)
            begun = boot_ns()
            pause = self._plan.seconds / max(1, len(entries))
            for number, kinds in enumerate(entries):
                due = begun + int((number + self._rng.random()) * pause * 1e9)
                if self._over.wait(max(0.0, (due - boot_ns()) / 1e9)):
                    return
                self._strike(kinds)
        except BaseException as error:  # told to whoever judges
            self.error = error

    def _strike(self, kinds: tuple[str, ...]) -> None:
        """Let the blows of one entry fall one upon another, then put back what they ended."""
        fallen: list[Blow] = []
        for kind in kinds:
            if kind in ("child", "worker"):
                fallen += self._until_struck(self._child if kind == "child" else self._worker)
            elif kind == "coordinator":
                fallen.append(self._coordinator())
            else:
                fallen.append(self._cut())
        for blow in fallen:
            if blow.kind == "worker":
                self._cluster.start_worker(blow.name)
        if "coordinator" in kinds:
            self._cluster.start_coordinator()
        for blow in fallen:
            self.blows.append(blow)
            self._tell(blow)

    def _until_struck(self, blow: Callable[[], Blow]) -> list[Blow]:
        """Let blows fall until one has struck its target at work: a task may end in between."""
        fallen: list[Blow] = []
        for _ in range(MISSES_MAX):
            fallen.append(blow())
            target, at_ns = fallen[-1].target, fallen[-1].at_ns
            assert target is not None
            run = next(r for r in self._witness.runs(target.task) if r.fence == target.fence)
            if run.ended_ns is None or run.ended_ns > at_ns:
                break
        return fallen

    def _prey(self, worker: str = "") -> tuple[Run, str]:
        """Wait for a run that may be struck; return it and the worker that carries it.

        With the name of a worker, for a young run there, be it spared.
        """
        found: list[tuple[Run, str]] = []

        def seek(seen: WitnessReader) -> bool:
            found.clear()
            for run in seen.busy():
                name = self._cluster.worker_of(run.pid)
                if not name or run.task in self._struck:
                    continue
                is_young = boot_ns() - run.begun_ns < YOUNG_NS
                if (name == worker and is_young) if worker else name not in self._spared:
                    found.append((run, name))
            return bool(found)

        self._witness.wait_until("a task runs", seek, timeout_seconds=BUSY_SECONDS)
        run, name = self._rng.choice(found)
        self._struck.add(run.task)
        return run, name

    def _child(self) -> Blow:
        while True:
            run, name = self._prey()
            try:
                pidfd = os.pidfd_open(run.pid)
            except ProcessLookupError:
                continue
            try:
                # Asked again now that the descriptor holds the process: the number may be another's
                if may_live(run):
                    at_ns = boot_ns()
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    return Blow("child", name, at_ns, frozenset({run.pid}), run)
            except ProcessLookupError:
                continue
            finally:
                os.close(pidfd)

    def _worker(self) -> Blow:
        run, name = self._prey()
        # The nursery is among these: a child that it forks in this moment is told by its label.
        below = frozenset(descendants(self._cluster.worker_pid(name)))
        at_ns = boot_ns()
        self._cluster.kill_worker(name)
        return Blow("worker", name, at_ns, below, run)

    def _coordinator(self) -> Blow:
        at_ns = boot_ns()
        pid = self._cluster.kill_coordinator()
        return Blow("coordinator", "coordinator", at_ns, frozenset({pid}))

    def _cut(self) -> Blow:
        """Cut a worker off until its run has ended there, and begun again elsewhere."""
        assert self._proxy is not None, "a plan with cuts needs a proxy"
        while True:
            run, name = self._prey(self._cut_name)
            at_ns = boot_ns()
            below = frozenset(descendants(self._cluster.worker_pid(name)))
            with self._proxy.apply(HalfOpen()):
                if _ended(self._witness, run):
                    continue  # Its outcome may have been delivered before the cut.
                self._witness.wait_until(
                    "the run of a worker that is cut off has ended, and begun elsewhere",
                    partial(_is_late, run=run),
                    timeout_seconds=CUT_SECONDS_MAX,
                )
            return Blow("cut", name, at_ns, below, run, boot_ns())


def _ended(witness: WitnessReader, run: Run) -> bool:
    return any(
        each.fence == run.fence and each.ended_ns is not None for each in witness.runs(run.task)
    )


def _is_late(witness: WitnessReader, run: Run) -> bool:
    begun_again = any(each.fence > run.fence for each in witness.runs(run.task))
    return begun_again and _ended(witness, run)
