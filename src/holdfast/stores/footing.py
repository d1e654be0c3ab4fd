"""The files that an open database stands on: whether their paths still name them.

SQLite goes on writing into a file that was removed or replaced, and whoever opens the database next
finds none of it. Owns the looking, and the saving of a write-ahead log that only a connection still
has. Never opens a file: to close one would drop the locks that SQLite has on it.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from holdfast.disk import fsync_directory

_Identity = tuple[int, int]
_SAVED = "all that was acknowledged was saved into the database"
_NOT_SAVED = "what was acknowledged last may be lost"


class Footing:
    """A database and its write-ahead log, as they were when the store opened them.

    What was lost stays lost: other connections may have the former files open.
    """

    def __init__(self, database: Path) -> None:
        self._database = str(database)
        self._wal = f"{database}-wal"
        self._ours: _Identity | None = None
        self._ours_wal: _Identity | None = None
        self._lost = ""
        self._bytes = 0
        self.cut = False
        """Whether the database became smaller. By itself it never does: nothing vacuums it."""
        self.wal_bytes = 0
        """The size of the log when it was last looked at."""

    def begin(self) -> str:
        """The database is open, and its log too; return what `look` does.

        A store that is opened again has to find the database of the first time.
        """
        if self._ours is None:
            self._ours = _identity(self._database)
        self._ours_wal = _identity(self._wal)
        return self.look()

    def end(self, connection: sqlite3.Connection | None) -> None:
        """The store is about to be closed: the next log is another."""
        if connection is not None and self.look():
            self.save(connection)
        self._ours_wal = None

    def look(self) -> str:
        """Return what was removed, replaced or cut since we began, "" where all is in place.

        It costs two calls of the system, so that it can follow every commit.
        """
        self._lost = self._lost or self._missed()
        return self._lost

    def _missed(self) -> str:
        if self._ours is None:
            return ""
        try:
            database = os.stat(self._database)
        except OSError:
            return f"the database {self._database} was removed"
        if (database.st_dev, database.st_ino) != self._ours:
            return f"the database {self._database} was replaced"
        if database.st_size < self._bytes:
            self.cut = True
            sizes = f"from {self._bytes} to {database.st_size} bytes"
            return f"the database {self._database} was cut {sizes}"
        self._bytes = database.st_size
        if self._ours_wal is None:
            return ""
        try:
            wal = os.stat(self._wal)
        except OSError:
            return f"the write-ahead log {self._wal} was removed"
        if (wal.st_dev, wal.st_ino) != self._ours_wal:
            return f"the write-ahead log {self._wal} was replaced"
        self.wal_bytes = wal.st_size
        return ""

    def save(self, connection: sqlite3.Connection) -> str:
        """Move into the database what a lost log holds; return how that went.

        The connection has that log open, which lasts as long as it does.
        """
        try:
            if self.cut or _identity(self._database) != self._ours:
                return _NOT_SAVED
            ((busy, frames, moved),) = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
            if busy or frames != moved:
                return _NOT_SAVED
            self._set_aside()
        except (sqlite3.Error, OSError) as error:
            return f"{_NOT_SAVED} ({error})"
        return _SAVED

    def _set_aside(self) -> None:
        """Keep another file at the log's path from being taken for what came last."""
        if _identity(self._wal) not in (None, self._ours_wal):
            os.replace(self._wal, f"{self._wal}.set-aside")
            fsync_directory(Path(self._wal).parent)


def _identity(path: str) -> _Identity | None:
    """Return which file a path names, None for no file."""
    try:
        named = os.stat(path)
    except OSError:
        return None
    return named.st_dev, named.st_ino
