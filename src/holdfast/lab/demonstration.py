"""The main job under fire: a tree of files is indexed while children, workers and the coordinator
are killed, and every result is compared with the same work done in one plain process.

    python -m holdfast.lab.demonstration < paths.json

is that plain process. Owns the order of the work and the report, in which nothing is assumed: who
was struck at work, what started again when, and what began twice is read from the witness. Blows
are `blows`'s, and what they excuse is `judgement`'s. It never shows anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.engines.current import current
from holdfast.errors import HoldfastError
from holdfast.lab.witness import Run, Witness, WitnessReader, boottime_ns
from holdfast.lab.workloads.indexing import Entry, index_file, merge
from holdfast.lab.workloads.marking import label

if TYPE_CHECKING:
    from holdfast.client.client import Client
    from holdfast.client.future import Future
    from holdfast.lab.blows import Blow, Striker
    from holdfast.lab.cluster import Cluster

KINDS = ("child", "worker", "coordinator")
_PAUSE_SECONDS = 0.9
_STUCK_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_SLOW_SECONDS = 0.3
_SLOW_TASKS = 24
_SUMS = "the sums over all files"


class Audience(Protocol):
    """Who is shown what happens, while it does."""

    def indexed(self, count: int) -> None:
        """So many files are done."""
        ...

    def once_more(self, tasks: int) -> None:
        """All are done before all blows have fallen; so many are done again, slowly."""
        ...

    def fell(self, blow: Blow, hit: bool) -> None:
        """A blow has fallen; `hit`: on something at work."""
        ...


@dataclass(slots=True)
class Answers:
    """What came back: for each file its entry, None where it was lost; `why` tells of those."""

    entries: list[Entry | None] = field(default_factory=list)
    again: list[tuple[str, Entry | None]] = field(default_factory=list)
    sums: Entry | None = None
    why: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What was seen. `begun_again_ms` is from the blow to the next begin, for each broken-off run.

    `struck` are blows on something at work, of all that have `fallen`; `blows_each` were wanted.
    """

    files: int
    blows_each: int
    seconds: float = 0.0
    plain_seconds: float = 0.0
    fallen: dict[str, int] = field(default_factory=dict)
    struck: dict[str, int] = field(default_factory=dict)
    broken_off: dict[str, int] = field(default_factory=dict)
    begun_again_ms: dict[str, list[float]] = field(default_factory=dict)
    went_on: int = 0
    """Runs that were at work when a coordinator was struck, and came to their end."""
    broken_off_alone: list[str] = field(default_factory=list)
    """Tasks of which a run has no end, although no blow broke it off."""
    begun_twice: int = 0
    begun_twice_alive: list[str] = field(default_factory=list)
    indexed_again: int = 0
    unreadable: int = 0
    lost: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    sums: Entry = field(default_factory=dict)

    @property
    def too_few(self) -> list[str]:
        """The kinds that were not struck at work as often as was wanted."""
        return [kind for kind in KINDS if self.struck.get(kind, 0) < self.blows_each]

    @property
    def is_valid(self) -> bool:
        """Whether every result is what a plain process gives, after enough blows, and no task that
        was not struck began twice or has no end.
        """
        return not (
            self.lost
            or self.differing
            or self.begun_twice_alive
            or self.broken_off_alone
            or self.too_few
        )


def index_slowly(path: str, witness: str, seconds: float) -> Entry:
    """Index a file and take so long at least: for blows on a tree that is indexed in no time."""
    attempt = current()
    with Witness(witness).running(attempt.id, attempt.fence, label=label()):
        time.sleep(seconds)
        return index_file(path)


def run_under_fire(
    cluster: Cluster,
    client: Client,
    files: Sequence[str],
    *,
    witness: Path,
    blows_each: int,
    seed: int,
    audience: Audience,
) -> tuple[Report, Answers]:
    """Index the files and merge, under blows. Returns the report, not compared yet, and answers.

    Raises what broke the striker, and TimeoutError where nothing ends any more.
    """
    from holdfast.lab.blows import Plan, Striker

    report, answers = Report(files=len(files), blows_each=blows_each), Answers()
    plan = Plan(
        seconds=_PAUSE_SECONDS * blows_each * len(KINDS),
        children=blows_each,
        workers=blows_each,
        coordinators=blows_each,
    )
    begun = boottime_ns()
    nobody: frozenset[str] = frozenset()
    reader = WitnessReader(witness)
    with Striker(cluster, reader, plan, seed=seed, spared=nobody, tell=audience.fell) as striker:
        futures = [client.submit(index_file, path, str(witness)) for path in files]
        _wait_all(futures, striker, audience.indexed)
        answers.entries = _taken(files, futures, answers.why)
        while striker.strikes:
            paths = list(islice(cycle(files), _SLOW_TASKS))
            audience.once_more(len(paths))
            futures = [
                client.submit(index_slowly, path, str(witness), _SLOW_SECONDS) for path in paths
            ]
            _wait_all(futures, striker, lambda count: None)
            answers.again += zip(paths, _taken(paths, futures, answers.why), strict=True)
    entries = [entry for entry in answers.entries if entry is not None]
    merged = client.submit(merge, entries, str(witness))
    merged.wait_done(_STUCK_SECONDS)
    answers.sums = _taken([_SUMS], [merged], answers.why)[0]
    report.seconds = (boottime_ns() - begun) / 1e9
    _judge(report, striker.blows, reader.runs())
    return report, answers


def _wait_all(
    futures: Sequence[Future[Any]], striker: Striker, done: Callable[[int], None]
) -> None:
    """Wait until all have ended. Raises what broke the striker: what it killed stays dead then."""
    ended: SimpleQueue[object] = SimpleQueue()
    for future in futures:
        future.add_done_callback(ended.put)
    count, deadline = 0, time.monotonic() + _STUCK_SECONDS
    while count < len(futures):
        try:
            ended.get(timeout=_LOOK_SECONDS)
        except Empty:
            striker.check()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"no task ended for {_STUCK_SECONDS:g} s; {len(futures) - count} are left"
                ) from None
        else:
            count, deadline = count + 1, time.monotonic() + _STUCK_SECONDS
            done(count)


def _taken(
    paths: Sequence[str], futures: Sequence[Future[Any]], why: dict[str, str]
) -> list[Entry | None]:
    """Return the results of tasks that have ended; of one that was lost, None."""
    entries: list[Entry | None] = []
    for path, future in zip(paths, futures, strict=True):
        try:
            entries.append(_tried(path, future.result))
        except HoldfastError as error:
            why[path] = str(error)
            entries.append(None)
    return entries


def _tried(path: str, work: Callable[[], Entry]) -> Entry:
    """Return what the work gives; that it cannot read its file is a result as well."""
    try:
        return work()
    except HoldfastError:
        raise
    except Exception as error:
        return {"path": path, "error": type(error).__name__}


def plain(files: Iterable[str]) -> tuple[list[Entry], Entry]:
    """Do the same work without any of this."""
    entries = [_tried(path, partial(index_file, path)) for path in files]
    return entries, merge(entries)


def compare(report: Report, files: Sequence[str], answers: Answers) -> None:
    """Do the work once more in one plain process, and note where a result differs."""
    begun = boottime_ns()
    expected, sums = _in_a_plain_process(files)
    report.plain_seconds = (boottime_ns() - begun) / 1e9
    wanted = dict(zip(files, expected, strict=True))
    for path, given in [*zip(files, answers.entries, strict=True), *answers.again]:
        if given is None:
            report.lost.append(f"{path}: {answers.why[path]}")
        elif given != wanted[path]:
            report.differing.append(path)
    if answers.sums is None:
        report.lost.append(f"{_SUMS}: {answers.why[_SUMS]}")
    elif answers.sums != sums:
        report.differing.append(_SUMS)
    report.indexed_again = len(answers.again)
    report.unreadable = sum("error" in entry for entry in expected)
    report.sums = sums


def _in_a_plain_process(files: Sequence[str]) -> tuple[list[Entry], Entry]:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=json.dumps(files),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        # A Ctrl-C at the terminal is for us; we end it.
        start_new_session=True,
    )
    if ended.returncode:
        raise HoldfastError(f"the plain process ended with {ended.returncode}: nothing to compare")
    entries, sums = json.loads(ended.stdout)
    return entries, sums


def _judge(report: Report, blows: Sequence[Blow], runs: Sequence[Run]) -> None:
    """Read from the witness what the blows have done."""
    from holdfast.lab.blows import is_at_work, struck
    from holdfast.lab.judgement import begun_again_ms, begun_alive, broken_off, by_task

    tasks = by_task(runs)
    for kind in KINDS:
        fallen = [blow for blow in blows if blow.kind == kind]
        report.fallen[kind] = len(fallen)
        report.struck[kind] = sum(is_at_work(blow, runs) for blow in fallen)
        report.broken_off[kind] = 0
        report.begun_again_ms[kind] = []
        if kind == "coordinator":
            report.went_on = sum(_goes_on(run, blow) for blow in fallen for run in runs)
    for run, blow in broken_off(tasks, blows):
        report.broken_off[blow.kind] += 1
        milliseconds = begun_again_ms(run, blow, tasks[run.task])
        report.begun_again_ms[blow.kind] += [] if milliseconds is None else [milliseconds]
    report.broken_off_alone = [
        run.task
        for run in runs
        if run.ended_ns is None and not any(struck(blow, run) for blow in blows)
    ]
    report.begun_twice = sum(len(each) > 1 for each in tasks.values())
    report.begun_twice_alive = [task for task, each in tasks.items() if begun_alive(each, blows)]


def _goes_on(run: Run, blow: Blow) -> bool:
    """Return whether a run was at work when a blow fell, and came to its end later."""
    return run.begun_ns < blow.at_ns and run.ended_ns is not None and run.ended_ns > blow.at_ns


if __name__ == "__main__":
    json.dump(plain(json.load(sys.stdin)), sys.stdout)
