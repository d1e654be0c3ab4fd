"""The judge of the kill test: what the store's file and the witness say, and nothing else.

Reads the SQLite file by itself, with statements of its own, so that no code under test has a part
in the verdict. Words: lost, unexpected, wrong, begun twice. It never waits and never mends.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from holdfast.lab.blows import PAIR_NS_MAX, Blow, Plan, is_at_work, struck
from holdfast.lab.witness import Run, WitnessReader, boottime_ns
from holdfast.lab.workloads.marking import answer

_SUCCEEDED = 3
_SPENT = 3
_JSON = 1
UNDELIVERED_NS_MAX = 5_000_000_000
"""How long an outcome may be on its way, with a coordinator that starts in between."""


class Verdict(IntEnum):
    """What was found; also the exit code. A test that did not reach its aim proves nothing."""

    VALID = 0
    INVALID = 1
    UNKNOWN = 2


class Row(NamedTuple):
    """What the store's file has of one task."""

    state: int
    fence: int
    token: bytes
    lease: int
    encoding: int
    result: bytes
    claimed_ms: int


@dataclass(frozen=True, slots=True)
class Case:
    """What was asked for and what the client was told: the number of each acknowledged task by its
    id, the results by id, and which tasks have to live through every blow."""

    plan: Plan
    numbers: Mapping[str, int]
    results: Mapping[str, object]
    long_lived: frozenset[str]
    tasks_min: int


@dataclass(slots=True)
class Findings:
    """Offences by kind, what stayed unproven, and figures. Times are from blow to next begin."""

    tasks: int = 0
    runs: int = 0
    blows: dict[str, int] = field(default_factory=dict)
    pairs: int = 0
    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    begun_twice: int = 0
    begun_twice_alive: list[str] = field(default_factory=list)
    superseded_ends: int = 0
    """Runs that ended although another attempt of their task was accepted."""
    unproven: list[str] = field(default_factory=list)
    begun_again_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Invalid where anything was found; unknown where too little was shown."""
        if self.lost or self.unexpected or self.wrong or self.begun_twice_alive:
            return Verdict.INVALID
        return Verdict.UNKNOWN if self.unproven else Verdict.VALID


def judge(case: Case, blows: Sequence[Blow], *, database: Path, witness: WitnessReader) -> Findings:
    """Compare what was asked with what the store and the witness have."""
    rows, tokens = _read(database)
    runs = by_task(witness.runs())
    found = Findings(tasks=len(case.numbers), runs=sum(map(len, runs.values())))
    _rows(found, case, rows, runs)
    if len(set(tokens)) != len(tokens):
        found.wrong.append("a token was given twice")
    _begins(found, runs, blows)
    _proof(found, case, runs, blows)
    _times(found, rows, runs, blows)
    if witness.torn_count or witness.stray_ends():
        found.unproven.append("the witness file is damaged")
    return found


def _read(database: Path) -> tuple[dict[str, Row], list[bytes]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = {
            _text(task): Row(*rest)
            for task, *rest in connection.execute(
                "SELECT id, state, fence, token, lease, result_encoding, result, claimed_ms "
                "FROM tasks"
            )
        }
        former = connection.execute("SELECT task, fence, token FROM attempts").fetchall()
    tokens = [row.token for row in rows.values() if row.token]
    tokens += [token for task, fence, token in former if fence != rows[_text(task)].fence]
    return rows, tokens


def _text(task: bytes) -> str:
    digits = task.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _rows(
    found: Findings, case: Case, rows: Mapping[str, Row], runs: Mapping[str, list[Run]]
) -> None:
    """One outcome for each task: of the newest attempt, whose run ended, and told as it is kept."""
    found.unexpected += [task for task in rows if task not in case.numbers]
    for task, number in case.numbers.items():
        row = rows.get(task)
        if row is None or row.state != _SUCCEEDED:
            found.lost.append(f"{task}: {'not kept' if row is None else f'state {row.state}'}")
            continue
        kept = json.loads(row.result) if row.encoding == _JSON else None
        if kept != [answer(number), row.fence]:
            found.wrong.append(f"{task}: the result {kept} under fence {row.fence}")
        elif task in case.results and case.results[task] != kept:
            found.wrong.append(f"{task}: told {case.results[task]}, kept {kept}")
        elif row.lease != _SPENT:
            found.wrong.append(f"{task}: its token is not spent")
        ended = [run.fence for run in runs.get(task, ()) if run.ended_ns is not None]
        if row.fence not in ended:
            found.wrong.append(f"{task}: attempt {row.fence} was accepted; ended: {ended}")
        found.superseded_ends += sum(fence != row.fence for fence in ended)


def _begins(found: Findings, runs: Mapping[str, list[Run]], blows: Sequence[Blow]) -> None:
    for task, each in runs.items():
        if len(each) == 1:
            continue
        found.begun_twice += 1
        fences = [run.fence for run in each]
        if len(set(fences)) != len(fences):
            found.begun_twice_alive.append(f"{task}: fences {fences}")
        for earlier, later in begun_alive(each, blows):
            found.begun_twice_alive.append(
                f"{task}: attempt {later.fence} begun, {earlier.fence} lived in {earlier.pid}"
            )


def begun_alive(each: Iterable[Run], blows: Sequence[Blow]) -> list[tuple[Run, Run]]:
    """Return each two runs of one task of which the second has no blow for its excuse."""
    ordered = sorted(each, key=lambda run: run.begun_ns)
    return [
        (earlier, later)
        for earlier, later in pairwise(ordered)
        if not any(_excuses(blow, earlier, later) for blow in blows)
    ]


def _excuses(blow: Blow, earlier: Run, later: Run) -> bool:
    """Whether a blow ended the process of a run, or cut it off, before the next one began."""
    return (
        blow.kind != "coordinator"
        and struck(blow, earlier)
        and blow.at_ns <= later.begun_ns
        and earlier.begun_ns <= (blow.healed_ns or blow.at_ns + PAIR_NS_MAX)
        # An outcome that was on its way when its process was struck is as good as none.
        and (earlier.ended_ns is None or earlier.ended_ns >= blow.at_ns - UNDELIVERED_NS_MAX)
    )


def _proof(
    found: Findings, case: Case, runs: Mapping[str, list[Run]], blows: Sequence[Blow]
) -> None:
    """See that what was to be shown was shown: enough blows on busy processes, under load."""
    every = [run for each in runs.values() for run in each]
    plain = [run for run in every if run.task not in case.long_lived]
    for kind in ("child", "worker", "coordinator", "cut"):
        found.blows[kind] = sum(is_at_work(blow, plain) for blow in blows if blow.kind == kind)
    found.pairs = sum(_is_pair(blow, blows) for blow in blows if blow.kind == "coordinator")
    plan = case.plan
    wanted = {
        "child": plan.children,
        "worker": plan.workers,
        "coordinator": plan.coordinators,
        "cut": plan.cuts,
    }
    for kind, count in wanted.items():
        if found.blows[kind] < count:
            found.unproven.append(f"{found.blows[kind]} × {kind} struck at work, not {count}")
    # A pair falls once: a machine that stalls for a moment may draw one of three apart.
    pairs = plan.pairs - plan.pairs // 3
    if found.pairs < pairs:
        found.unproven.append(f"{found.pairs} pairs of blows, not {pairs}")
    if plan.cuts and not found.superseded_ends:
        found.unproven.append("no outcome came late")
    if found.tasks < case.tasks_min:
        found.unproven.append(f"{found.tasks} tasks, not {case.tasks_min}")
    falls = [blow.at_ns for blow in blows if blow.kind == "coordinator"]
    for task in case.long_lived:
        each = runs.get(task, [])
        if len(each) != 1 or each[0].ended_ns is None:
            continue  # judged elsewhere
        if falls and not each[0].begun_ns < min(falls) <= max(falls) < each[0].ended_ns:
            found.unproven.append(f"{task} did not live through every blow to a coordinator")


def _is_pair(blow: Blow, blows: Sequence[Blow]) -> bool:
    return any(
        other is not blow and abs(other.at_ns - blow.at_ns) <= PAIR_NS_MAX for other in blows
    )


def _times(
    found: Findings,
    rows: Mapping[str, Row],
    runs: Mapping[str, list[Run]],
    blows: Sequence[Blow],
) -> None:
    """Milliseconds from a blow to the next begin of what it broke off.

    For a coordinator, which breaks nothing off: to the next begin of a task that was claimed after.
    """
    wall_ns = time.time_ns() - boottime_ns()
    claimed = sorted(
        (run.begun_ns, rows[task].claimed_ms * 1_000_000 - wall_ns)
        for task, each in runs.items()
        if task in rows
        for run in each
        if run.fence == rows[task].fence
    )
    for blow in blows:
        times = found.begun_again_ms.setdefault(blow.kind, [])
        if blow.kind == "coordinator":
            begun = next((at for at, claim in claimed if at > claim > blow.at_ns), None)
            times += [] if begun is None else [(begun - blow.at_ns) / 1e6]
    for run, blow in broken_off(runs, blows):
        milliseconds = begun_again_ms(run, blow, runs[run.task])
        found.begun_again_ms[blow.kind] += [] if milliseconds is None else [milliseconds]


def broken_off(runs: Mapping[str, Sequence[Run]], blows: Sequence[Blow]) -> list[tuple[Run, Blow]]:
    """Return each run that has no end, with the first blow upon its process while it was at work.

    A later blow finds the same nursery, but not the same child.
    """
    ordered = sorted(blows, key=lambda blow: blow.at_ns)
    found: list[tuple[Run, Blow]] = []
    for run in (run for each in runs.values() for run in each if run.ended_ns is None):
        fallen = (b for b in ordered if struck(b, run) and run.begun_ns < b.at_ns)
        if (first := next(fallen, None)) is not None:
            found.append((run, first))
    return found


def begun_again_ms(run: Run, blow: Blow, each: Sequence[Run]) -> float | None:
    """Return the milliseconds from a blow to the next begin of the task whose run it broke off."""
    later = [other.begun_ns for other in each if other.fence > run.fence]
    return (min(later) - blow.at_ns) / 1e6 if later else None


def by_task(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return the runs of each task, in the order of their begins."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.task, []).append(run)
    return found
