"""`python -m holdfast.lab.sim`: run seeds, count what went wrong, and say whether the product held.

Results go to stdout. Exit code 0: all runs valid; 1: one is invalid; 2: one could not be judged.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from holdfast.lab.sim.coverage import Point, markdown, missing, table
from holdfast.lab.sim.misfortunes import FaultKind
from holdfast.lab.sim.world import Report, Verdict, run

COMMAND = "python -m holdfast.lab.sim"


class Tally:
    """The sum of many runs."""

    def __init__(self) -> None:
        self.verdicts = dict.fromkeys(Verdict, 0)
        self.faults = dict.fromkeys(FaultKind, 0)
        self.passed: dict[Point, int] = {}
        self.crashed: dict[Point, int] = {}
        self.counted = self.tasks = self.runs = 0
        self.virtual_seconds = 0.0

    def add(self, report: Report) -> None:
        """Count one run."""
        self.verdicts[report.verdict] += 1
        self.counted += report.counted_faults
        self.tasks += report.tasks
        self.runs += report.runs
        self.virtual_seconds += report.seconds
        for kind, count in report.faults.items():
            self.faults[kind] += count
        for total, part in ((self.passed, report.passed), (self.crashed, report.crashed)):
            for point, count in part.items():
                total[point] = total.get(point, 0) + count

    @property
    def verdict(self) -> Verdict:
        """Invalid where any run is, else unknown where any run is."""
        if self.verdicts[Verdict.INVALID]:
            return Verdict.INVALID
        return Verdict.UNKNOWN if self.verdicts[Verdict.UNKNOWN] else Verdict.VALID

    def markdown(self) -> list[str]:
        """Return what a document says of these runs."""
        verdicts = ", ".join(f"{count} {verdict.text}" for verdict, count in self.verdicts.items())
        faults = ", ".join(f"{count} {kind.text}" for kind, count in self.faults.items())
        summary = (
            f"{sum(self.verdicts.values())} seeds ({verdicts}), {self.counted} faults, "
            f"{self.tasks} tasks, {self.runs} runs of user code, "
            f"{self.virtual_seconds / 3600:.1f} h of virtual time. By kind: {faults}."
        )
        return [summary, "", *markdown(self.passed, self.crashed), "", *self._never()]

    def _never(self) -> list[str]:
        never = missing(self.passed, self.crashed)
        lines = [f"crash points passed but never deadly: {len(never)} of {len(self.passed)}"]
        return lines + [f"  {' '.join(point)}" for point in never]

    def lines(self, real_seconds: float) -> list[str]:
        """Return what is to be told."""
        lines = [f"{kind.text:12} {count:>8}" for kind, count in self.faults.items()]
        lines += ["", *table(self.passed, self.crashed), "", *self._never()]
        words = ", ".join(f"{count} {verdict.text}" for verdict, count in self.verdicts.items())
        per_minute = self.counted / real_seconds * 60
        lines.append(
            f"{self.tasks} tasks, {self.runs} runs of user code, {self.virtual_seconds:.0f} s of "
            f"virtual time, {self.counted} faults in {real_seconds:.1f} s ({per_minute:.0f}/min)"
        )
        return [*lines, f"{self.verdict.text}: {words}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds; return the exit code."""
    options = _options(arguments)
    tally, began = Tally(), time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        report = run(seed, keep=options.verbose, faults_max=options.faults_max)
        tally.add(report)
        if options.verbose:
            _say(*report.history)
            _say(f"seed {seed}: {report.verdict.text}, history {report.digest}")
        if report.verdict is not Verdict.VALID:
            _say(*_complaint(report, options.faults_max))
    if options.markdown:
        _say(*tally.markdown())
    else:
        _say(*tally.lines(max(time.monotonic() - began, 1e-6)))
    return int(tally.verdict)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--faults-max", type=int, default=None, help="keep only so many faults of each plan"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print what docs/guarantees.md shows"
    )
    parser.add_argument("--verbose", action="store_true", help="print each history and its digest")
    return parser.parse_args(arguments)


def _complaint(report: Report, faults_max: int | None) -> list[str]:
    lines = [f"seed {report.seed}: {report.verdict.text}"]
    lines += [f"  {violation}" for violation in report.violations]
    bound = "" if faults_max is None else f" --faults-max {faults_max}"
    lines.append(f"  repeat: {COMMAND} --seeds 1 --first {report.seed}{bound} --verbose")
    return lines


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
