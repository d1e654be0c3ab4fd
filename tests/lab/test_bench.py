"""The bench: the arithmetic of its figures, its report, and a quick run of a few families."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast import wiring
from holdfast.cli.app import Exit
from holdfast.cli.bench import bench
from holdfast.lab.bench import report
from holdfast.lab.bench.budget import BUDGET_US
from holdfast.lab.bench.catalogue import FAMILIES, chosen, measure
from holdfast.lab.bench.goals import GOALS, Goal, Over, Reading, Verdict, judge, quantile, read
from holdfast.lab.bench.machine import describe, file_system
from holdfast.lab.bench.processes import cpu_of, pss_mb
from holdfast.lab.bench.stage import Bench
from holdfast.lab.bench.throughput import throughput

FASTER = Goal(key="rate_tasks_per_second", title="rate", at_least=10, aim=20, rising=True)
SHORTER = Goal(key="wait_ms", title="wait", at_least=20, aim=10)
TAIL = Goal(key="tail_ms", title="tail", at_least=20, aim=10, over=Over.P95)
NEVER = Goal(key="lost_tasks", title="lost", at_least=0, aim=0, over=Over.WORST)


@pytest.mark.parametrize(
    ("samples", "goal", "reading"),
    [
        ([5.0, 1.0, 9.0], FASTER, Reading(5.0, 1.0)),
        ([5.0, 1.0, 9.0], SHORTER, Reading(5.0, 9.0)),
        ([5.0, 1.0, 9.0], None, Reading(5.0, 9.0)),
        ([2.0, 4.0], SHORTER, Reading(3.0, 4.0)),
        ([float(n) for n in range(1, 101)], TAIL, Reading(95.0, 100.0)),
        ([7.0], TAIL, Reading(7.0, 7.0)),
        ([0.0, 0.0, 1.0], NEVER, Reading(1.0, 1.0)),
    ],
)
def test_a_figure_stands_for_its_samples(
    samples: list[float], goal: Goal | None, reading: Reading
) -> None:
    assert read(samples, goal) == reading


@pytest.mark.parametrize(
    ("part", "expected"), [(0.5, 2.0), (0.51, 3.0), (0.95, 4.0), (0.01, 1.0), (1.0, 4.0)]
)
def test_a_quantile_is_a_sample(part: float, expected: float) -> None:
    assert quantile([4.0, 2.0, 1.0, 3.0], part) == expected


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        (FASTER, 20.0, Verdict.MEETS_AIM),
        (FASTER, 19.9, Verdict.AT_LEAST),
        (FASTER, 10.0, Verdict.AT_LEAST),
        (FASTER, 9.9, Verdict.BELOW),
        (SHORTER, 10.0, Verdict.MEETS_AIM),
        (SHORTER, 10.1, Verdict.AT_LEAST),
        (SHORTER, 20.1, Verdict.BELOW),
        (NEVER, 0.0, Verdict.MEETS_AIM),
        (NEVER, 1.0, Verdict.BELOW),
    ],
)
def test_a_verdict_compares_with_the_goal(goal: Goal, value: float, verdict: Verdict) -> None:
    assert judge(value, goal) is verdict


def test_goals_have_keys_of_their_own_and_aims_beyond_what_is_enough() -> None:
    assert len({goal.key for goal in GOALS}) == len(GOALS)
    for goal in GOALS:
        assert judge(goal.aim, goal) is Verdict.MEETS_AIM
        assert judge(goal.at_least, goal) is not Verdict.BELOW


def test_the_table_shows_a_figure_its_goal_and_the_verdict() -> None:
    samples = {"latency_ms_p50": [1.0, 2.5, 4.0], "throughput_tasks_per_second": [9_000, 8_000]}
    lines = report.lines_of(samples)
    head, first, second = report.table(lines).splitlines()
    assert head.split() == ["figure", "measured", "worst", "at", "least", "aim", "verdict"]
    assert first.split()[-5:] == ["8,500", "8,000", "10,000", "20,000", "BELOW"]
    assert second.split()[-6:] == ["2.5", "4", "3", "2", "at", "least"]
    assert not report.is_enough(lines)
    assert report.is_enough(lines[1:])


def test_the_data_is_flat_and_tells_the_worst_of_several() -> None:
    samples = {
        "latency_ms_p50": [1.23456, 2.34567, 4.0],
        "backlog_fill_seconds": [31.41592],
        "pool_tasks_per_second": [9_000.0, 7_000.0, 8_000.0],
    }
    assert report.as_data(samples, {"machine_cores": 2}) == {
        "machine_cores": 2,
        "latency_ms_p50": 2.346,
        "latency_ms_p50_worst": 4,
        "backlog_fill_seconds": 31.42,
        "pool_tasks_per_second": 8_000,
        "pool_tasks_per_second_worst": 7_000,
    }


def test_the_budget_is_shown_beside_what_was_measured() -> None:
    assert report.budget_table({}) == ""
    samples = {f"budget_{part}_us_per_task": [2.0] for part, _, _ in BUDGET_US}
    lines = report.budget_table(samples).splitlines()
    assert len(lines) == len(BUDGET_US) + 2
    assert lines[-1].split() == ["in", "all", "12", "98"]
    assert report.others({**samples, "backlog_fill_seconds": [2.0]}).split()[-1] == "2"


def test_a_quick_run_leaves_the_longest_out() -> None:
    assert "coordinator-away" not in chosen((), quick=True)
    assert chosen((), quick=False) == list(FAMILIES)
    assert chosen(("idle", "latency"), quick=True) == ["latency", "idle"]


def test_the_machine_and_its_processes_are_described(tmp_path: Path) -> None:
    machine = describe(tmp_path)
    assert machine["machine_cores"] >= 1
    assert machine["machine_file_system"] == file_system(tmp_path) != "unknown"
    assert pss_mb(os.getpid()) > 1
    assert cpu_of(os.getpid()).total > 0


def test_a_family_measures_what_it_promises(tmp_path: Path) -> None:
    told: list[str] = []
    workplace = Bench(wiring.connect, tmp_path, quick=True, tell=told.append)
    samples = measure(workplace, ["latency", "child-kill"])
    assert told == ["latency", "child-kill"]
    assert set(samples) == {"latency_ms_p50", "latency_ms_p99", "child_kill_to_begin_ms_p95"}
    assert all(value > 0 for values in samples.values() for value in values)
    assert list(tmp_path.iterdir()) == []


def test_throughput_counts_rows_tokens_and_results(tmp_path: Path) -> None:
    samples = throughput(Bench(wiring.connect, tmp_path, quick=True))
    assert samples["throughput_rows_wrong"] == [0]
    assert {f"budget_{part}_us_per_task" for part, _, _ in BUDGET_US} < set(samples)
    assert all(commits > 0 for commits in samples["throughput_round_commits"])


def test_the_command_writes_the_file_and_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {"startup_help_ms": [10_000.0]}
    monkeypatch.setattr("holdfast.cli.bench.measure", lambda workplace, names: results)
    target = tmp_path / "figures.json"
    words = ["--quick", "--only", "startup", "--json", str(target), "--directory", str(tmp_path)]
    ran = CliRunner().invoke(bench, words, standalone_mode=False)
    assert "BELOW" in ran.stdout
    assert ran.return_value == Exit.FAILED
    assert json.loads(target.read_text())["startup_help_ms"] == 10_000
    results["startup_help_ms"] = [10.0]
    ran = CliRunner().invoke(bench, ["--only", "startup", "--json", "-"], standalone_mode=False)
    assert ran.exception is None
    assert json.loads(ran.stdout)["startup_help_ms"] == 10
