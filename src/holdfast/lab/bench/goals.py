"""The figures that have a goal, and the verdict on what was measured.

Rules: every key carries its unit. A figure is the median of its rounds beside the worst of them; a
time from a blow to a new begin is the 95th percentile of all blows; what must never happen is the
worst of all. A figure meets its aim, or is at least good enough, or is below.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

Samples = Mapping[str, Sequence[float]]
"""What a family measured: for each key one number a round, or one a blow."""


class Over(Enum):
    """Which number stands for the samples of a figure."""

    MEDIAN = "median"
    P95 = "p95"
    WORST = "worst"


class Verdict(Enum):
    """How a figure stands against its goal."""

    MEETS_AIM = "meets aim"
    AT_LEAST = "at least"
    BELOW = "BELOW"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a figure should be. `rising`: more is better."""

    key: str
    title: str
    at_least: float
    aim: float
    rising: bool = False
    over: Over = Over.MEDIAN


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure as measured: the number that stands for it, and its worst sample."""

    value: float
    worst: float


def quantile(samples: Sequence[float], part: float) -> float:
    """Return the smallest sample that at least this part of the samples does not exceed."""
    ordered = sorted(samples)
    rank = -(-round(part * 1_000_000) * len(ordered) // 1_000_000)
    return ordered[max(0, rank - 1)]


def rises(key: str) -> bool:
    """Whether more is better of a figure without a goal: of rates it is, of all others less."""
    return key.endswith("_per_second")


def read(samples: Sequence[float], goal: Goal | None = None, *, rising: bool = False) -> Reading:
    """Return what stands for the samples; `rising`: more is better, where no goal says so."""
    rising = rising if goal is None else goal.rising
    worst = min(samples) if rising else max(samples)
    over = Over.MEDIAN if goal is None else goal.over
    if over is Over.WORST:
        return Reading(worst, worst)
    if over is Over.P95:
        return Reading(quantile(samples, 0.05 if rising else 0.95), worst)
    return Reading(statistics.median(samples), worst)


def judge(value: float, goal: Goal) -> Verdict:
    """Compare a figure with its goal."""
    if value >= goal.aim if goal.rising else value <= goal.aim:
        return Verdict.MEETS_AIM
    enough = value >= goal.at_least if goal.rising else value <= goal.at_least
    return Verdict.AT_LEAST if enough else Verdict.BELOW


def _more(key: str, title: str, at_least: float, aim: float) -> Goal:
    return Goal(key=key, title=title, at_least=at_least, aim=aim, rising=True)


def _less(key: str, title: str, at_least: float, aim: float, over: Over = Over.MEDIAN) -> Goal:
    return Goal(key=key, title=title, at_least=at_least, aim=aim, over=over)


def _never(key: str, title: str) -> Goal:
    return Goal(key=key, title=title, at_least=0, aim=0, over=Over.WORST)


GOALS = (
    _more("throughput_tasks_per_second", "no-op tasks, there and back (tasks/s)", 10_000, 20_000),
    _more("throughput_ratio_to_process_pool", "… against ProcessPoolExecutor(2)", 1.0, 2.0),
    _more("throughput_1kb_ratio_to_noop", "… with 1 KB there and back, to no-op", 0.7, 0.85),
    _more("throughput_closure_ratio_to_noop", "… of a pickled closure, to no-op", 0.5, 0.7),
    _never("throughput_rows_wrong", "… rows, tokens or results missing in the store"),
    _more("submission_tasks_per_second", "submission alone, durable (tasks/s)", 30_000, 60_000),
    _less("latency_ms_p50", "one task at a time, p50 (ms)", 3, 2),
    _less("latency_ms_p99", "one task at a time, p99 (ms)", 6, 4),
    _less("child_kill_to_begin_ms_p95", "child killed → begins again, p95 (ms)", 60, 20, Over.P95),
    _less(
        "worker_kill_to_begin_ms_p95", "worker killed → begins again, p95 (ms)", 300, 100, Over.P95
    ),
    _less("coordinator_kill_to_done_seconds", "coordinator killed → new task done (s)", 3, 1),
    _never("coordinator_kill_begun_twice_tasks", "… running tasks begun twice"),
    _never("coordinator_away_begun_twice_tasks", "coordinator away 60 s: tasks begun twice"),
    _more("backlog_throughput_ratio_to_empty", "behind a mixed backlog, to no backlog", 0.8, 0.95),
    _less("backlog_latency_ms_p50", "… top priority among its plain ones, p50 (ms)", 20, 5),
    _less("behind_long_task_ms", "50 no-ops behind a long task, all done (ms)", 200, 50),
    _less("memory_coordinator_mb", "coordinator with a queue, PSS (MB)", 200, 120),
    _less("memory_supervisor_and_guard_mb", "supervisor and guard, PSS (MB)", 80, 50),
    _less("memory_idle_child_mb", "idle child, PSS (MB)", 40, 25),
    _less("startup_import_ms", "import holdfast over bare Python (ms)", 100, 60),
    _less("startup_help_ms", "holdfast --help (ms)", 300, 150),
    _less("startup_first_result_seconds", "embedded connect → first result (s)", 1.0, 0.5),
    _less("startup_attach_ms", "attach to a running coordinator (ms)", 150, 60),
    _never("idle_commits_per_minute", "idle, with a client: commits a minute"),
    _less("idle_coordinator_cpu_seconds_per_minute", "… coordinator's CPU a minute (s)", 0.5, 0.1),
)
