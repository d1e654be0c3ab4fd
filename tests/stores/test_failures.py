"""What an error of the driver means."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest

from holdfast.errors import StoreDoubtError, StoreFullError, StoreRefusedError
from holdfast.stores.failures import (
    EXIT_FSYNC_FAILED,
    error_code,
    is_damage,
    is_failed_fsync,
    judge,
)


def driver_error(code: int, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("words of the driver")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (driver_error(sqlite3.SQLITE_FULL), StoreFullError),
        (driver_error(sqlite3.SQLITE_CONSTRAINT_NOTNULL), StoreRefusedError),
        (driver_error(sqlite3.SQLITE_TOOBIG, sqlite3.DataError), StoreRefusedError),
        (sqlite3.ProgrammingError("cannot bind"), StoreRefusedError),
        (sqlite3.InterfaceError("cannot bind"), StoreRefusedError),
        (OverflowError("too large"), StoreRefusedError),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), StoreRefusedError),
        (driver_error(sqlite3.SQLITE_IOERR_WRITE), StoreDoubtError),
        (driver_error(sqlite3.SQLITE_BUSY), StoreDoubtError),
        (RuntimeError("a bug of ours"), StoreDoubtError),
    ],
)
def test_a_meaning_is_definite_only_after_a_sure_rollback(
    error: Exception, meaning: type[Exception]
) -> None:
    assert type(judge(error, rolled_back=True)) is meaning
    assert type(judge(error, rolled_back=False)) is StoreDoubtError


def test_a_failed_fsync_is_known_by_its_code() -> None:
    assert is_failed_fsync(driver_error(sqlite3.SQLITE_IOERR_FSYNC))
    assert is_failed_fsync(driver_error(sqlite3.SQLITE_IOERR_DIR_FSYNC))
    assert not is_failed_fsync(driver_error(sqlite3.SQLITE_IOERR_WRITE))
    assert error_code(sqlite3.ProgrammingError()) == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (driver_error(sqlite3.SQLITE_CORRUPT, sqlite3.DatabaseError), True),
        (driver_error(sqlite3.SQLITE_CORRUPT_INDEX, sqlite3.DatabaseError), True),
        (driver_error(sqlite3.SQLITE_NOTADB, sqlite3.DatabaseError), True),
        (sqlite3.OperationalError("Could not decode to UTF-8 column 'queue'"), True),
        (driver_error(sqlite3.SQLITE_IOERR_READ), False),
        (driver_error(sqlite3.SQLITE_FULL), False),
        (sqlite3.ProgrammingError("cannot bind"), False),
    ],
)
def test_damage_is_told_apart(error: sqlite3.Error, expected: bool) -> None:
    assert is_damage(error) is expected


def test_the_end_of_the_process_is_told() -> None:
    program = "from holdfast.stores.failures import end_process; end_process('fsync failed')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == EXIT_FSYNC_FAILED
    assert "fsync failed" in done.stderr
