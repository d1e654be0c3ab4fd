"""The report: one flat JSON object with units in its keys, and a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from holdfast.lab.bench.budget import BUDGET_US
from holdfast.lab.bench.goals import GOALS, Goal, Reading, Samples, Verdict, judge, read, rises

_DIGITS = 4
_THOUSAND = 1_000


@dataclass(frozen=True, slots=True)
class Line:
    """One figure with a goal, as measured."""

    goal: Goal
    reading: Reading
    verdict: Verdict


def lines_of(samples: Samples) -> list[Line]:
    """Return the figures that were measured and have a goal, in the order of the goals."""
    lines = []
    for goal in GOALS:
        if goal.key in samples:
            reading = read(samples[goal.key], goal)
            lines.append(Line(goal, reading, judge(reading.value, goal)))
    return lines


def is_enough(lines: Sequence[Line]) -> bool:
    """Whether no figure is below what it has to be at least."""
    return all(line.verdict is not Verdict.BELOW for line in lines)


def as_data(
    samples: Samples, machine: Mapping[str, str | int | float]
) -> dict[str, str | int | float]:
    """Return the flat object: every key with its number, those with several samples also `_worst`.

    For a figure with a goal, its verdict is not in it: goals change, measurements do not.
    """
    goals = {goal.key: goal for goal in GOALS}
    data = dict(machine)
    for key, values in samples.items():
        reading = read(values, goals.get(key), rising=rises(key))
        data[key] = rounded(reading.value)
        if len(values) > 1:
            data[f"{key}_worst"] = rounded(reading.worst)
    return data


def table(lines: Sequence[Line]) -> str:
    """Return the figures in columns."""
    rows = [("figure", "measured", "worst", "at least", "aim", "verdict")]
    rows += [
        (
            line.goal.title,
            shown(line.reading.value),
            shown(line.reading.worst),
            shown(line.goal.at_least),
            shown(line.goal.aim),
            line.verdict.value,
        )
        for line in lines
    ]
    return "\n".join(_columns(rows))


def budget_table(samples: Samples) -> str:
    """Return the budget of one task beside what was measured, "" where nothing was."""
    rows = [("CPU, µs a task", "measured", "budget")]
    measured = budget = 0.0
    for part, title, allowed in BUDGET_US:
        values = samples.get(f"budget_{part}_us_per_task")
        if values is None:
            return ""
        spent = read(values).value
        measured, budget = measured + spent, budget + allowed
        rows.append((title, shown(spent), shown(allowed)))
    rows.append(("in all", shown(measured), shown(budget)))
    return "\n".join(_columns(rows))


def others(samples: Samples) -> str:
    """Return what was measured beside the goals and the budget, a line each."""
    told = {goal.key for goal in GOALS}
    rows = [
        (key, shown(read(values).value))
        for key, values in samples.items()
        if key not in told and not key.startswith("budget_")
    ]
    return "\n".join(_columns(rows)) if rows else ""


def rounded(value: float) -> int | float:
    """Return a number with four digits that say something; whole numbers stay whole."""
    if float(value).is_integer():
        return int(value)
    if abs(value) >= _THOUSAND:
        return round(value)
    return float(f"{value:.{_DIGITS}g}")


def shown(value: float) -> str:
    """Return a number as people read it."""
    number = rounded(value)
    return f"{number:,}" if isinstance(number, int) else f"{number:.3g}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        first, *rest = row
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()
