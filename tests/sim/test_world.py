"""Whole runs: deterministic, quick, and honest about what they saw."""

from __future__ import annotations

import subprocess
import sys

import pytest

from holdfast.lab.sim.__main__ import main
from holdfast.lab.sim.world import Verdict, run

SEEDS = range(24)
SHOWN = (
    # seed, and how many of its faults there were then
    (290, 13),
    (300, 46),
    (564, 12),
    (1029, 43),
    (1445, 25),
    (5912, 22),
    (6492, 47),
    (31579, 8),
    (100832, 47),
    (105418, 23),
    (108665, 32),
    (111048, 63),
    (300414, 45),
    (720224, 23),
    (9000054, 36),
    (9010670, 35),
    (3, None),
    (243, None),
    (9200001, None),
    (9200220, None),
    (9207417, None),
    (9811175, None),
    (9503129, None),
    (9508076, None),
)
"""Each showed a fault of the product, or of the judge, when it was first run."""
PRINT_DIGESTS = (
    "from holdfast.lab.sim.world import run\nprint([run(seed).digest for seed in (1, 4, 5)])\n"
)


def test_a_calm_world_runs_each_healthy_task_once() -> None:
    for seed in range(6):
        report = run(seed, faults_max=0)
        assert report.verdict is Verdict.VALID, report.violations
        assert report.tasks > 0
        assert report.counted_faults == 0


def test_a_troubled_world_is_valid() -> None:
    faults = 0
    for seed in SEEDS:
        report = run(seed)
        assert report.verdict is Verdict.VALID, (seed, report.violations)
        faults += report.counted_faults
    assert faults > 10 * len(SEEDS)


@pytest.mark.parametrize(("seed", "faults_max"), SHOWN)
def test_a_seed_that_showed_a_fault_is_valid(seed: int, faults_max: int | None) -> None:
    report = run(seed, faults_max=faults_max)
    assert report.verdict is Verdict.VALID, report.violations


def test_a_client_dies_and_the_next_one_knows_what_was_accepted() -> None:
    lives = forgotten = 0
    for seed in range(8):
        report = run(seed, keep=True)
        assert report.verdict is Verdict.VALID, (seed, report.violations)
        lives += sum(" starts, life" in line and " client-" in line for line in report.history)
        forgotten += sum(
            " dies and forgets t" in line and " client-" in line for line in report.history
        )
    assert lives > 2
    assert forgotten > 0


def test_the_same_seed_is_the_same_history_under_any_hash_seed() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PRINT_DIGESTS],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        ).stdout
        for seed in ("1", "424242")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].strip() == str([run(seed).digest for seed in (1, 4, 5)])


def test_the_command_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--first", "1"]) == 0
    told = capsys.readouterr().out
    assert "crash points passed but never deadly" in told
    assert "coordinator commit outcome" in told
    assert told.rstrip().endswith("valid: 2 valid, 0 invalid, 0 unknown")


def test_the_command_tells_documents(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--first", "1", "--markdown"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("1 seeds (1 valid, 0 invalid, 0 unknown)")
    table = [line.split(" | ") for line in told if " | " in line]
    assert {len(row) for row in table} == {5}
    assert any(row[0] == "coordinator commit outcome" for row in table)
    assert any(row[0] == "client Submit" for row in table)


def test_a_verbose_run_shows_its_history(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--faults-max", "0", "--verbose"]) == 0
    told = capsys.readouterr().out
    assert "0.000000 coordinator starts, life 1" in told
    assert "history " in told
