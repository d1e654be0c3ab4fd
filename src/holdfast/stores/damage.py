"""A database that is damaged: how it is told, and the mark beside it that keeps it shut.

Half a database would go on to acknowledge what nobody may be able to read again. So it is marked
once a damaged page was met, and no coordinator opens it until a person has taken the mark away.
Owns the mark and its words. Never reads or mends the database.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from pathlib import Path

from holdfast.errors import HoldfastError, StoreCorruptError, StoreDoubtError
from holdfast.observe import logger
from holdfast.stores.failures import is_damage


def mark_of(database: Path) -> Path:
    """Return the path of the mark that a damaged database gets."""
    return Path(f"{database}.damaged")


def refuse_marked(database: object) -> None:
    """Raise StoreCorruptError where the database is a file that was found to be damaged."""
    # A directory that cannot be reached is told by the opening itself.
    if isinstance(database, Path) and os.path.lexists(mark_of(database)):
        raise told(database, "as was found earlier")


def damaged(database: object, error: sqlite3.Error) -> StoreCorruptError:
    """Mark a database as damaged, where it is a file, and return the error that says so."""
    if isinstance(database, Path):
        mark(database, str(error))
    return told(database, str(error))


def mark(database: Path, why: str) -> None:
    """Keep a database shut until a person has looked at it."""
    try:
        mark_of(database).write_text(f"{why}\n", encoding="utf-8")
    except OSError as problem:
        logger("stores").error("a damaged database cannot be marked: %s", problem)


def unreadable(database: object, error: sqlite3.Error) -> HoldfastError:
    """Return the error of a read that broke off: damaged, which is for good, or in doubt."""
    if is_damage(error):
        return damaged(database, error)
    return StoreDoubtError(f"{database} could not be read: {error}")


def told(database: object, why: str) -> StoreCorruptError:
    """Return the error of a damaged database, with all that a person has to do."""
    text = f"the database {database} is damaged ({why}); nothing more is accepted from it"
    if isinstance(database, Path):
        file, mended = shlex.quote(str(database)), shlex.quote(f"{database}.mended")
        text += (
            f". Copy its directory first. Then put a backup in its place, or what "
            f"`sqlite3 {file} .recover | sqlite3 {mended}` could save: look whether that has your "
            f"tasks. Remove {database.name}-wal, {database.name}-shm and {mark_of(database)}, "
            "and start again"
        )
    return StoreCorruptError(text)
