"""How a frame of `holdfast top` looks, at any size of a terminal.

Owns the tables and how many rows each may have. What people chose, the names of functions and
workers, is shown as text and never obeyed, neither by rich nor by the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from holdfast.cli.options import at
from holdfast.cli.overview import (
    Frame,
    class_text,
    duration_text,
    failing,
    rate_text,
    slowest,
)

_WIDE = 100
"""From here on two tables stand side by side."""
_FIXED_LINES = 7
_ROWS_MAX = 30
_STYLES = {"running": "green", "succeeded": "green", "failed": "red", "paused": "yellow"}
Row = Sequence[str]


def picture(frame: Frame | None, trouble: str, *, width: int, height: int) -> RenderableType:
    """Return what is drawn on a terminal of this size. `height` 0: as many lines as it takes."""
    if frame is None:
        return Group(_head("", trouble or "waiting for the coordinator"))
    reading = frame.reading
    wide = width >= _WIDE
    rows = _rows_each(height, blocks=2 if wide else 4)
    workers = _table(
        ("worker", "state", "running", "holds", "heard"),
        [
            (
                worker["name"],
                worker["state"],
                f"{worker['running']}/{worker['slots']}",
                str(worker["holds"]),
                f"{worker['heard_seconds_ago']:.1f} s ago",
            )
            for worker in reading.workers
        ],
        rows,
        empty="no worker is connected",
    )
    waiting = _table(
        ("waiting", "tasks"),
        [
            (class_text(needs), f"{count:,}")
            for needs, count in sorted(reading.waiting.items(), key=lambda each: -each[1])
        ],
        rows,
        empty="nothing waits",
    )
    slow = _table(
        ("slowest", "ended", "mean", "longest"),
        [
            (
                each["function"],
                f"{each['ended']:,}",
                duration_text(each["mean_ms"]),
                duration_text(each["max_ms"]),
            )
            for each in slowest(reading.functions)
        ],
        rows,
        empty="nothing has run",
    )
    bad = _table(
        ("failing", "failed", "of"),
        [
            (each["function"], f"{each['failed']:,}", f"{each['ended']:,}")
            for each in failing(reading.functions)
        ],
        rows,
        empty="nothing failed of late",
    )
    blank = Text("")
    head = _head(at(reading.at_ms), trouble, workers=len(reading.workers), clients=reading.clients)
    tables: list[RenderableType] = [workers, blank, waiting, blank, slow, blank, bad]
    if wide:
        tables = [_beside(workers, waiting), blank, _beside(slow, bad)]
    return Group(head, *_counts(frame), blank, *tables)


def _rows_each(height: int, *, blocks: int) -> int:
    """Return how many rows each of the blocks may have, below its head and a blank line."""
    if not height:
        return _ROWS_MAX
    return max(1, min(_ROWS_MAX, (height - _FIXED_LINES) // blocks - 2))


def _head(when: str, trouble: str, *, workers: int = 0, clients: int = 0) -> Text:
    head = Text("holdfast top", style="bold", no_wrap=True, overflow="ellipsis")
    if when:
        words = f"   {when}   workers {workers:,}   clients {clients:,}"
        head.append(words, style="not bold")
    if trouble:
        head = Text(no_wrap=False).append(head).append(f"\n{_shown(trouble)}", style="bold red")
    return head


def _counts(frame: Frame) -> list[Text]:
    """Return the lines of tasks by state, and of rates."""
    states = Text()
    for state, count in frame.reading.tasks.items():
        style = _STYLES.get(state, "") if count else "dim"
        states.append(f"{state} {count:,}", style=style).append("   ")
    rates = Text()
    for name, rate in frame.rates.items():
        rates.append(f"{name} {rate_text(rate)}").append("   ")
    states.rstrip()
    rates.rstrip()
    return [states, rates]


def _table(head: Row, rows: Sequence[Row], rows_max: int, *, empty: str) -> Table:
    """Return a table whose first column gives way where it is narrow."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for number, word in enumerate(head):
        table.add_column(
            word.upper(),
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if number and word != "state" else "left",
        )
    cut = len(rows) > rows_max
    for row in rows[: rows_max - 1 if cut else rows_max]:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    if cut:
        table.add_row(Text(f"… and {len(rows) - rows_max + 1:,} more", style="dim"))
    if not rows:
        table.add_row(Text(empty, style="dim"))
    return table


def _beside(left: Table, right: Table) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0), expand=True)
    grid.add_column(ratio=3)
    grid.add_column(ratio=2)
    grid.add_row(left, right)
    return grid


def _shown(text: str) -> str:
    """Return a text of somebody else without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)
