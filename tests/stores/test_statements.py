"""The statements: the index each of them must use, and chunks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from holdfast.stores import statements
from holdfast.stores.connections import memory_disk
from holdfast.stores.migrate import migrate


@pytest.fixture
def disk() -> Iterator[sqlite3.Connection]:
    made = memory_disk()
    migrate(made, store_id="plans")
    yield made
    made.close()


PLANS = {
    "load": (statements.load_tasks(4), "sqlite_autoindex_tasks_1 (id=?)"),
    "load_keys": (statements.load_keys(4), "tasks_key (key=?)"),
    "running": (statements.RUNNING, "tasks_running (id>?)"),
    "ready": (statements.READY, "tasks_claimable (needs=? AND (rank,id)>(?,?))"),
    "classes": (statements.CLASSES, "SEARCH t USING INDEX tasks_claimable (needs>?)"),
    "due": (statements.DUE, "tasks_due (due_ms>? AND due_ms<?)"),
    "next_due": (statements.NEXT_DUE, "tasks_due (due_ms>?)"),
    "update": (statements.update_plain(4), "sqlite_autoindex_tasks_1 (id=?)"),
    "update_full": (statements.update_full(4), "sqlite_autoindex_tasks_1 (id=?)"),
    "kept_code": (statements.kept_code(4), "COVERING INDEX sqlite_autoindex_code_1 (digest=?)"),
    "events": (statements.EVENTS, "events_task (task=?)"),
    "attempts": (statements.ATTEMPTS, "PRIMARY KEY (task=?)"),
    "queued_by_class": (statements.QUEUED_BY_CLASS, "INDEX tasks_claimable"),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_statement_uses_its_index(disk: sqlite3.Connection, name: str) -> None:
    sql, index = PLANS[name]
    plan = disk.execute(f"EXPLAIN QUERY PLAN {sql}", [0] * sql.count("?")).fetchall()
    steps = [row[3] for row in plan]
    assert any(index in step for step in steps), steps
    assert not any("SCAN tasks" in step and "INDEX" not in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


def test_counting_reads_indexes_only(disk: sqlite3.Connection) -> None:
    steps = [row[3] for row in disk.execute(f"EXPLAIN QUERY PLAN {statements.COUNTS}")]
    touching = [step for step in steps if "tasks" in step]
    assert len(touching) == 4
    assert all("INDEX tasks_" in step for step in touching), steps


def test_functions_are_told_from_the_end_of_an_index(disk: sqlite3.Connection) -> None:
    plan = disk.execute(f"EXPLAIN QUERY PLAN {statements.FUNCTIONS}", [1] * 5)
    touching = [step for step in (row[3] for row in plan) if " tasks" in step]
    assert touching == ["SEARCH tasks USING INDEX tasks_ended (state=?)"] * 3


@pytest.mark.parametrize(
    ("count", "rows"), [(0, 1), (1, 1), (2, 2), (3, 4), (200, 256), (256, 256)]
)
def test_rows_for_is_the_next_power_of_two(count: int, rows: int) -> None:
    assert statements.rows_for(count) == rows


def test_chunks_hold_everything_in_order() -> None:
    items = list(range(600))
    chunks = list(statements.in_chunks(items))
    assert [len(chunk) for chunk in chunks] == [256, 256, 88]
    assert [item for chunk in chunks for item in chunk] == items
    assert list(statements.in_chunks([])) == []
