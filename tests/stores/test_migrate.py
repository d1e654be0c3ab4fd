"""Migrations: in order, once, whole or not at all."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from holdfast.errors import StoreVersionError
from holdfast.stores.connections import connect, memory_disk
from holdfast.stores.migrate import (
    Migration,
    migrate,
    schema_of,
    shipped_migrations,
    statements_of,
)

FIRST = Migration(1, shipped_migrations()[0].sql)
SECOND = Migration(2, "CREATE TABLE more (a); -- one; two\nINSERT INTO more VALUES (';');")
BROKEN = Migration(2, "CREATE TABLE more (a);\nINSERT INTO nothing VALUES (1);")


@pytest.fixture
def disk() -> Iterator[sqlite3.Connection]:
    made = memory_disk()
    yield made
    made.close()


def test_an_older_schema_is_brought_up_and_keeps_its_name(disk: sqlite3.Connection) -> None:
    assert schema_of(disk) == 0
    assert migrate(disk, store_id="first", steps=[FIRST]) == 1
    assert migrate(disk, store_id="second", steps=[FIRST, SECOND]) == 2
    assert migrate(disk, store_id="third", steps=[FIRST, SECOND]) == 2
    assert schema_of(disk) == 2
    assert disk.execute("SELECT a FROM more").fetchall() == [(";",)]
    assert disk.execute("SELECT store, timeline, turn FROM meta").fetchall() == [("first", 1, 0)]


def test_a_step_that_fails_leaves_the_schema_before_it(disk: sqlite3.Connection) -> None:
    migrate(disk, store_id="first", steps=[FIRST])
    with pytest.raises(sqlite3.OperationalError, match="nothing"):
        migrate(disk, store_id="first", steps=[FIRST, BROKEN])
    assert not disk.in_transaction
    assert schema_of(disk) == 1
    assert migrate(disk, store_id="first", steps=[FIRST, SECOND]) == 2


def test_a_newer_schema_is_left_alone(disk: sqlite3.Connection) -> None:
    migrate(disk, store_id="first", steps=[FIRST, SECOND])
    with pytest.raises(StoreVersionError, match=r"schema 2.*up to 1"):
        migrate(disk, store_id="first", steps=[FIRST])
    assert not disk.in_transaction
    assert schema_of(disk) == 2


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads give way to each other a hundred times as often: what races, shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 100)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_many_openers_migrate_once(tmp_path: Path) -> None:
    def opener(path: Path, number: int) -> str:
        connection = connect(path)
        try:
            migrate(connection, store_id=f"store {number}")
            return str(connection.execute("SELECT store FROM meta").fetchone()[0])
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        for round_number in range(40):
            path = tmp_path / f"{round_number}.db"
            assert len(set(pool.map(partial(opener, path), range(8)))) == 1


def test_a_script_falls_apart_at_its_semicolons_only() -> None:
    script = "CREATE TABLE a (b); -- c; d\n\nINSERT INTO a VALUES (';\n');\n"
    whole = [part.strip() for part in statements_of(script)]
    assert whole == ["CREATE TABLE a (b); -- c; d", "INSERT INTO a VALUES (';\n');"]


def test_the_shipped_ones_are_numbered_without_gaps() -> None:
    numbers = [step.number for step in shipped_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))
