"""Bring a database to the schema of this release: numbered SQL files, in order, forward only.

Owns the number of the schema. Never changes a database that a newer release wrote.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import StoreVersionError


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: from schema `number` - 1 to `number`."""

    number: int
    sql: str


def shipped_migrations() -> list[Migration]:
    """Return the migrations of this release, in order."""
    # A plain path: `importlib.resources` costs more to import than the migration takes.
    folder = Path(__file__).with_name("migrations")
    found = [
        Migration(int(entry.name[:4]), entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    found.sort(key=lambda migration: migration.number)
    assert [migration.number for migration in found] == list(range(1, len(found) + 1))
    return found


def migrate(
    connection: sqlite3.Connection, *, store_id: str, steps: Sequence[Migration] | None = None
) -> int:
    """Run what is missing in one transaction under the write lock; return the schema's number.

    `store_id` names a store that is made here. Raises StoreVersionError where the database is
    newer than the last step.
    """
    steps = shipped_migrations() if steps is None else steps
    newest = steps[-1].number
    found = schema_of(connection)
    if found == newest:
        return found
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Asked again under the lock: another process may have migrated since.
        found = schema_of(connection)
        if found > newest:
            raise StoreVersionError(
                f"the database has schema {found}, this release knows up to {newest}: "
                "run the newer release again, or restore a backup from before the upgrade"
            )
        for step in steps[found:]:
            for statement in statements_of(step.sql):
                connection.execute(statement)
        if found == 0:
            connection.execute("INSERT INTO meta VALUES (1, ?, 1, 0, ?)", (store_id, newest))
        connection.execute("UPDATE meta SET schema = ?", (newest,))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return newest


def schema_of(connection: sqlite3.Connection) -> int:
    """Return the number of the database's schema, 0 for an empty one."""
    found = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'meta'"
    ).fetchone()
    if not found[0]:
        return 0
    return int(connection.execute("SELECT schema FROM meta").fetchone()[0])


def statements_of(script: str) -> Iterator[str]:
    """Yield the statements of a script one by one: `executescript` would commit before each."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if ";" in line and sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    assert not pending.strip(), "a migration ends with a whole statement"
