"""Blows against a running cluster: whom they strike is chosen by seed, from what is at work.

Owns the order of the blows and the record of each: when it fell, and on which processes. Nothing is
struck but while the witness shows a task at work: children and workers where they run one that was
not struck before and are not spared, the coordinator where any such worker is busy. A blow that
came too late is in the record too, and another falls in its place. It never judges what followed.
"""

from __future__ import annotations

import os
import random
import select
import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from holdfast.lab.cluster import Cluster, boot_ns, descendants
from holdfast.lab.faults.proxy_thread import ProxyThread
from holdfast.lab.faults.tcp import HalfOpen
from holdfast.lab.witness import Run, WitnessReader, may_live

BUSY_SECONDS = 20.0
CUT_SECONDS_MAX = 30.0
DEATH_SECONDS_MAX = 5.0
MISSES_MAX = 5
"""So often a task may end before the blow falls, until the blow is given up."""
YOUNG_NS = 500_000_000
"""A run that began so lately is not over before its worker is cut off."""
PAIR_NS_MAX = 100_000_000
"""Two blows within this span count as one upon another."""
PAIR_TRIES_MAX = 3


@dataclass(frozen=True, slots=True)
class Blow:
    """One blow. `pids` are the processes that it ended, or cut off until `healed_ns`.

    `target` is the run that was seen alive and at work before it fell.
    """

    kind: str
    name: str
    at_ns: int
    pids: frozenset[int]
    target: Run | None = None
    healed_ns: int = 0


def struck(blow: Blow, run: Run) -> bool:
    """Return whether a blow fell on the process of a run, or on the nursery that it is of."""
    return run.pid in blow.pids or (run.label != "" and int(run.label) in blow.pids)


def is_at_work(blow: Blow, runs: Iterable[Run]) -> bool:
    """Return whether the target of a blow was at work when it fell.

    A child is gone at once: where its run has an end all the same, the blow came too late.
    """
    target = blow.target
    if target is None:
        return False
    identity = (target.task, target.fence, target.begun_ns)
    return any(
        run.begun_ns < blow.at_ns
        and (run.ended_ns is None or (run.ended_ns > blow.at_ns and blow.kind != "child"))
        for run in runs
        if (run.task, run.fence, run.begun_ns) == identity
    )


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


class _EndedError(Exception):
    """No more blows are wanted."""


class Striker:
    """Strikes on a thread of its own, from when it is entered until the plan is done.

    `tell` learns of each blow, and whether it struck anything at work. `proxy` stands before
    `cut_name`. Left early it strikes no more; what broke it is raised then, also in place of an
    error of the block, which it explains.
    """

    def __init__(
        self,
        cluster: Cluster,
        witness: WitnessReader,
        plan: Plan,
        *,
        seed: int,
        spared: frozenset[str],
        tell: Callable[[Blow, bool], None],
        proxy: ProxyThread | None = None,
        cut_name: str = "",
    ) -> None:
        self.blows: list[Blow] = []
        self._error: Exception | None = None
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

    def __enter__(self) -> Striker:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        explains = error is None or (isinstance(error, Exception) and error is not self._error)
        if self._error is not None and explains:
            raise self._error from error

    @property
    def strikes(self) -> bool:
        """Whether blows are still to fall."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raise what broke it, where anything did: what it has killed does not come back."""
        if self._error is not None:
            raise self._error

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
        except _EndedError:
            return
        except Exception as error:  # told to whoever waits or leaves
            self._error = error

    def _strike(self, kinds: tuple[str, ...]) -> None:
        """Let the blows of one entry fall one upon another, then put back what they ended.

        Where a machine that stalls has drawn them apart, they fall again.
        """
        for _ in range(PAIR_TRIES_MAX):
            fallen = [self._until_struck(kind) for kind in kinds]
            for blow in fallen:
                self._put_back(blow)
            if fallen[-1].at_ns - fallen[0].at_ns <= PAIR_NS_MAX:
                return

    def _until_struck(self, kind: str) -> Blow:
        """Let blows fall until one has struck its target at work: a task may end in between."""
        strike = {
            "child": self._child,
            "worker": self._worker,
            "coordinator": self._coordinator,
            "cut": self._cut,
        }[kind]
        for misses in range(1, MISSES_MAX + 1):
            blow = strike()
            self.blows.append(blow)
            hit = is_at_work(blow, self._witness.runs())
            self._tell(blow, hit)
            if hit or misses == MISSES_MAX:
                break
            # It may be the only one of its kind, and what is down cannot be struck.
            self._put_back(blow)
        return blow

    def _put_back(self, blow: Blow) -> None:
        if blow.kind == "worker":
            self._cluster.start_worker(blow.name)
        elif blow.kind == "coordinator":
            self._cluster.start_coordinator()

    def _wait(self, what: str, holds: Callable[[WitnessReader], object], seconds: float) -> None:
        """Wait for what the witness shows. Raises TimeoutError, and _EndedError when left."""

        def look(seen: WitnessReader) -> object:
            if self._over.is_set():
                raise _EndedError
            return holds(seen)

        self._witness.wait_until(what, look, timeout_seconds=seconds)

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

        self._wait("a task runs that may be struck", seek, BUSY_SECONDS)
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
                    # Until it is gone it may still write that its task has ended.
                    select.select([pidfd], [], [], DEATH_SECONDS_MAX)
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
        found: list[Run] = []

        def seek(seen: WitnessReader) -> bool:
            # What a worker that was just killed still runs has no supervisor any more.
            found[:] = [run for run in seen.busy() if self._may_strike(run)]
            return bool(found)

        self._wait("a task runs", seek, BUSY_SECONDS)
        # The oldest is the one that most likely takes long.
        oldest = min(found, key=lambda run: run.begun_ns)
        at_ns = boot_ns()
        pid = self._cluster.kill_coordinator()
        return Blow("coordinator", "coordinator", at_ns, frozenset({pid}), oldest)

    def _may_strike(self, run: Run) -> bool:
        name = self._cluster.worker_of(run.pid)
        return name != "" and name not in self._spared

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
                self._wait(
                    "the run of a worker that is cut off has ended, and begun elsewhere",
                    partial(_is_late, run=run),
                    CUT_SECONDS_MAX,
                )
            return Blow("cut", name, at_ns, below, run, boot_ns())


def _ended(witness: WitnessReader, run: Run) -> bool:
    return any(
        each.fence == run.fence and each.ended_ns is not None for each in witness.runs(run.task)
    )


def _is_late(witness: WitnessReader, run: Run) -> bool:
    begun_again = any(each.fence > run.fence for each in witness.runs(run.task))
    return begun_again and _ended(witness, run)
