"""Connections to one SQLite database, wherever it is: a file, a URI in memory, or a lent one.

Owns the pragmas. Never writes rows.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Literal

from holdfast.errors import ConfigurationError, HoldfastError, StoreDoubtError
from holdfast.stores.damage import told
from holdfast.stores.failures import error_code, is_damage

Database = Path | str | sqlite3.Connection
"""A file; `:memory:` or a `file:` URI; or a connection that its owner lends.

A lent connection outlives the store, as a disk outlives a process: `memory_disk` makes one.
"""

Durability = Literal["full", "normal"]

BUSY_SECONDS = 5.0
_BUSY_PAUSE_SECONDS = 0.005
_CACHED_STATEMENTS = 128
_PAGE_BYTES = 8192
_CACHE_KIB = 64 * 1024
_UNUSABLE = frozenset({sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})


def memory_disk() -> sqlite3.Connection:
    """Return an empty database in memory, to be lent to stores and readers on one thread."""
    return sqlite3.connect(":memory:", isolation_level=None, cached_statements=_CACHED_STATEMENTS)


def is_file(database: Database) -> bool:
    """Tell whether the database is a file, which several threads can open."""
    return isinstance(database, Path)


def connect(database: Database, *, durability: Durability = "full") -> sqlite3.Connection:
    """Open a connection, or take the lent one.

    Raises the driver's errors; `opening_failed` tells what they mean.
    """
    if isinstance(database, sqlite3.Connection):
        if database.in_transaction:
            # Its last borrower died in the middle: the disk shows what was committed.
            database.rollback()
        _prepare(database, durability)
        return database
    connection = sqlite3.connect(
        str(database),
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
        uri=isinstance(database, str),
    )
    try:
        _prepare(connection, durability)
    except BaseException:
        connection.close()
        raise
    return connection


def opening_failed(database: Database, error: sqlite3.Error) -> HoldfastError:
    """Return the error of a database that does not open: what to mend, or who may hold it."""
    primary = error_code(error) & 0xFF
    if is_damage(error):
        return told(database, f"{error}")
    if not isinstance(database, Path) or primary not in _UNUSABLE:
        return StoreDoubtError(f"{database} could not be opened: {error}")
    folder = database.parent
    try:
        folder.stat()
    except FileNotFoundError:
        return ConfigurationError(f"the state directory {folder} does not exist; make it")
    except OSError as reason:
        return ConfigurationError(f"the state directory {folder} cannot be used: {reason}")
    return ConfigurationError(
        f"the state directory {folder} cannot be written ({error}); "
        "give this user the right to write there, or choose another"
    )


def _prepare(connection: sqlite3.Connection, durability: str) -> None:
    shape = [
        # These two take effect while the database is empty, so they stand before the journal mode.
        # A larger page halves the writes of a turn whose rows hold payloads of a kilobyte.
        f"page_size = {_PAGE_BYTES}",
        "auto_vacuum = INCREMENTAL",
    ]
    pragmas = [
        # Set again, the second one writes: a reader would commit, into whatever is its log.
        *([] if _has_pages(connection) else shape),
        "journal_mode = WAL",
        f"synchronous = {durability.upper()}",
        # Another connection checkpoints, so that no turn pays for it.
        "wal_autocheckpoint = 0",
        "foreign_keys = OFF",
        # Some builds overwrite freed pages with zeros; durable rows need no such care.
        "secure_delete = OFF",
        f"cache_size = -{_CACHE_KIB}",
    ]
    deadline = time.monotonic() + BUSY_SECONDS
    for pragma in pragmas:
        while not _set(connection, pragma):
            if time.monotonic() > deadline:
                raise sqlite3.OperationalError("database is locked while it is opened")
            time.sleep(_BUSY_PAUSE_SECONDS)


def _has_pages(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA page_count").fetchone()[0])


def _set(connection: sqlite3.Connection, pragma: str) -> bool:
    """Return False where another opener is in the way: of two that both want to turn a fresh
    database to WAL, SQLite lets one fail at once instead of having it wait."""
    try:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    except sqlite3.OperationalError as error:
        if error_code(error) & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True
