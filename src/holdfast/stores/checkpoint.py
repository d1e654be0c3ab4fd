"""Keep the write-ahead log short, from a connection that no turn waits for.

Owns WAL checkpoints. PASSIVE moves the bulk while turns go on; what comes after needs the write
lock only for the rest, and lets the next turn begin at the start of the log. The file keeps its
room, because overwriting is cheaper than growing: no block has to be found, and no new size made
durable. Only a file that has grown far is cut. A log that readers hold open is tried again after
the next turn.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from holdfast.observe import logger
from holdfast.stores.connections import Durability, connect
from holdfast.stores.failures import is_damage, is_failed_fsync

WAL_BYTES_MAX = 16 * 1024 * 1024

_CUT_FACTOR = 2
"""Beyond so many times its bound the file gives its room back."""
_HOLD_FACTOR = 4
"""At so many times its bound the log holds turns up: a busy writer can starve the checkpoint."""
_HOLD_SECONDS = 1.0
_BUSY_MS = 200
"""RESTART and TRUNCATE wait for readers with the write lock in hand: a turn may stand so long."""


class WalCheckpoints:
    """Checkpoint when the log has grown past a bound, on a thread of its own or inline.

    `holds` tells whether the database and its log are still the files that the store writes to.
    """

    def __init__(
        self,
        path: Path,
        *,
        inline: bool,
        durability: Durability,
        bytes_max: int,
        die: Callable[[str], NoReturn],
        holds: Callable[[], bool],
    ) -> None:
        self._path = path
        self._wal = Path(f"{path}-wal")
        self._durability: Durability = durability
        self._bytes_max = bytes_max
        self._die = die
        self._holds = holds
        self._connection: sqlite3.Connection | None = None
        self.damage: sqlite3.Error | None = None
        """What a checkpoint found broken; the store asks before it goes on."""
        self._written_bytes = 0
        """What turns wrote since the log last began anew; about, and that is enough."""
        self._room_bytes = 0
        """How large the file was then: it grows only where turns have written more than that."""
        # One order may wait: more would ask for the same work again.
        self._orders: queue.Queue[bool] = queue.Queue(1)
        self._at_rest = threading.Event()
        self._thread: threading.Thread | None = None
        if not inline:
            self._thread = threading.Thread(
                target=self._serve, name="holdfast-checkpoint", daemon=True
            )
            self._thread.start()

    def look(self, turn_bytes: int, size_bytes: int) -> None:
        """Order a checkpoint where the log is past its bound. Called after each turn.

        `turn_bytes` is about what the turn wrote, `size_bytes` the size of the file. Far past the
        bound it waits for the checkpoint, for `_HOLD_SECONDS` at the most.
        """
        self._written_bytes += turn_bytes
        if self._written_bytes <= self._bytes_max and size_bytes <= max(
            self._bytes_max, self._room_bytes
        ):
            return
        if self._thread is None:
            self._perform()
            return
        self._at_rest.clear()
        with suppress(queue.Full):
            self._orders.put_nowait(True)
        if size_bytes > _HOLD_FACTOR * self._bytes_max:
            # A checkpoint that ran already may end the wait early; the next turn waits again.
            self._at_rest.wait(_HOLD_SECONDS)

    def close(self) -> None:
        """Wait for the checkpoint that runs, and close the connection."""
        if self._thread is not None:
            self._orders.put(False)
            self._thread.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _serve(self) -> None:
        while self._orders.get():
            self._perform()
            self._at_rest.set()

    def _perform(self) -> None:
        try:
            if self._connection is None:
                self._connection = connect(self._path, durability=self._durability)
                self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}").fetchall()
            if not self._holds():
                # What lies at the path of the log is not what turns were written to.
                return
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            far = self._wal.stat().st_size > _CUT_FACTOR * self._bytes_max
            mode = "TRUNCATE" if far else "RESTART"
            ((busy, _, _),) = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            if not busy:
                self._written_bytes = 0
                self._room_bytes = self._wal.stat().st_size
        except OSError as error:
            logger("stores").warning("the log %s cannot be seen: %s", self._wal, error)
        except sqlite3.Error as error:
            if is_failed_fsync(error):
                # The kernel may have dropped the pages: a second fsync would lie.
                self._die(f"a checkpoint of {self._path} could not be made durable: {error}")
            if is_damage(error):
                self.damage = error
            logger("stores").warning("a checkpoint of %s failed: %s", self._path, error)
