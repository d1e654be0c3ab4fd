"""Whole runs: deterministic, quick, and honest about what they saw."""

from __future__ import annotations

import subprocess
import sys

import pytest

from holdfast.lab.sim.__main__ import main
from holdfast.lab.sim.world import Verdict, run

SEEDS = range(24)
SHOWN = [
    int(seed)
    for seed in """
    290 300 564 1029 1445 5912 6492 31579 100832 105418 108665 111048 300414 720224 9000054 9010670
    """.split()
]
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


@pytest.mark.parametrize("seed", SHOWN)
def test_a_seed_that_showed_a_fault_is_valid(seed: int) -> None:
    report = run(seed)
    assert report.verdict is Verdict.VALID, report.violations


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
    assert not any(row[0].startswith("client") for row in table)


def test_a_verbose_run_shows_its_history(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--faults-max", "0", "--verbose"]) == 0
    told = capsys.readouterr().out
    assert "0.000000 coordinator starts, life 1" in told
    assert "history " in told
