"""What an error of SQLite means: surely not written, no room, damaged for good, or unknown.

Owns that judgement alone. Never retries and never hides the driver's words.
"""

from __future__ import annotations

import os
import sqlite3
from typing import NoReturn

import msgspec

from holdfast.errors import HoldfastError, StoreDoubtError, StoreFullError, StoreRefusedError
from holdfast.observe import logger

EXIT_FSYNC_FAILED = 70

CONTENT_ERRORS = (OverflowError, TypeError, ValueError, msgspec.MsgspecError)
"""What encoding and binding raise for values that no column holds (UnicodeError among them)."""

_PRIMARY = 0xFF
_FULL = 13
_FSYNC_FAILED = frozenset({1034, 1290})
"""SQLITE_IOERR_FSYNC and SQLITE_IOERR_DIR_FSYNC (sqlite.org/rescode.html)."""
_DAMAGED = frozenset({11, 26})
"""SQLITE_CORRUPT and SQLITE_NOTADB."""
_NO_TEXT = "Could not decode to UTF-8"
"""So the driver begins, without a code, where a column's bytes are not the text that they were."""
_CONTENT = frozenset({18, 19, 20})
"""SQLITE_TOOBIG, SQLITE_CONSTRAINT and SQLITE_MISMATCH."""


def error_code(error: sqlite3.Error) -> int:
    """Return the extended result code, 0 where the driver itself objected."""
    return getattr(error, "sqlite_errorcode", 0) or 0


def is_failed_fsync(error: sqlite3.Error) -> bool:
    """Tell whether the kernel failed to make pages durable, and may have dropped them."""
    return error_code(error) in _FSYNC_FAILED


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether pages of the database are not what was written: asking again mends nothing."""
    code = error_code(error)
    return code & _PRIMARY in _DAMAGED if code else str(error).startswith(_NO_TEXT)


def judge(error: Exception, *, rolled_back: bool) -> HoldfastError:
    """Return the error of the tree for one that broke a transaction off.

    Definite only where the transaction was surely rolled back and the contents or the room were
    at fault. All else is in doubt, be it that nothing was written: the caller reopens and asks.
    """
    if rolled_back:
        if isinstance(error, sqlite3.Error):
            primary = error_code(error) & _PRIMARY
            if primary == _FULL:
                return StoreFullError(f"no room for the turn, nothing was written: {error}")
            if primary in _CONTENT or isinstance(
                error, sqlite3.InterfaceError | sqlite3.ProgrammingError | sqlite3.DataError
            ):
                return StoreRefusedError(f"the turn cannot be stored: {error}")
        elif isinstance(error, CONTENT_ERRORS):
            return StoreRefusedError(f"the turn cannot be stored: {error}")
    return StoreDoubtError(f"the turn broke off ({error}); reopen the store and ask last_turn()")


def end_process(text: str) -> NoReturn:
    """Log, and end the process without any cleaning up that could write again."""
    logger("stores").critical("%s", text)
    os._exit(EXIT_FSYNC_FAILED)
