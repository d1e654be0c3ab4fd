"""The supervisor's end of the guard: starts it, tells it, and hears of its death.

Satisfies `ports.Guard`. A word to the guard is in its pipe when the call returns; a guard that does
not read for `STALL_SECONDS` is ended, and its death is told like any other. What a guard has to
know is kept here too, so that the next one, started in its place, knows it from its first moment.

A guard outlives its closing: it hears what is answered and what is spooled afterwards, and tells of
what is left at the end of this process. Closed without a farewell, because our end is not an
orderly one, it takes us for dead at once, and tells in any case.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from holdfast.engines import guard
from holdfast.model.ids import TOKEN_BYTES, Token
from holdfast.observe import logger

STALL_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 12.0
"""How long it may take to end all that is below a guard; the guard bounds its killing at 10 s."""
PIPE_BYTES: Final = 1 << 20

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from holdfast.engines.guard import main; "
    "sys.exit(main(sys.argv[2:]))"
)
_LOG = logger("engines.guard")


class GuardProcess:
    """One guard, and the pipe to it."""

    def __init__(self, *, python: str, died: Callable[[], None]) -> None:
        self._python = python
        self._died = died
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._pidfd = -1
        self._gone: asyncio.Event | None = None
        self._watch = -1
        """The end of a pipe that the guard closes when nothing is left below it."""
        self._cleared: asyncio.Event | None = None
        self._started: dict[Token, None] = {}
        self._spooled: dict[Token, None] = {}
        self._session = b""

    @property
    def pid(self) -> int:
        """The process id, 0 where there is none."""
        return self._process.pid if self._process else 0

    @property
    def lives(self) -> bool:
        """Whether there is a guard: what is below us is its to end."""
        return self._pidfd >= 0

    def start(self, nursery: Sequence[str], *, inherit: int) -> None:
        """Start a guard, which starts the nursery; `inherit` is a descriptor for the latter.

        It is told at once what the one before it knew.
        """
        root = str(Path(__file__).parents[2])
        theirs: list[int] = []
        try:
            read, self._pipe = os.pipe2(os.O_CLOEXEC)
            theirs.append(read)
            self._watch, cleared = os.pipe2(os.O_CLOEXEC)
            theirs.append(cleared)
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            os.set_blocking(self._pipe, False)
            ends = (*theirs, inherit)
            self._process = subprocess.Popen(
                [self._python, "-I", "-S", "-c", _BOOT, root, *map(str, ends), *nursery],
                pass_fds=ends,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            # A guard that was started ends with its pipe.
            self._release()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._gone, self._cleared = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pidfd, self._ended)
        loop.add_reader(self._watch, self._clear)
        if self._session:
            self._write(guard.SESSION, self._session)
        self._tell(guard.STARTED, list(self._started))
        self._tell(guard.SPOOLED, list(self._spooled))

    def started(self, tokens: Sequence[Token]) -> None:
        """These tokens are about to be handed to a child. Returns when the pipe has them."""
        self._started.update(dict.fromkeys(tokens))
        self._tell(guard.STARTED, tokens)

    def spooled(self, tokens: Sequence[Token]) -> None:
        """The outcomes of these tokens are durable in the spool."""
        self._spooled.update(dict.fromkeys(tokens))
        self._tell(guard.SPOOLED, tokens)

    def done(self, tokens: Sequence[Token]) -> None:
        """These tokens are settled; forget them."""
        for token in tokens:
            self._started.pop(token, None)
        if self._spooled:
            for token in tokens:
                self._spooled.pop(token, None)
        self._tell(guard.DONE, tokens)

    def session(self, *, url: str, identity: str, incarnation: int, last_word: str) -> None:
        """Where, and with which one-use token, to tell of our death."""
        facts = {
            "url": url,
            "identity": identity,
            "incarnation": incarnation,
            "last_word": last_word,
        }
        self._session = json.dumps(facts).encode()
        self._write(guard.SESSION, self._session)

    async def close(self, *, farewell: bool = True) -> None:
        """Say farewell, and wait until the guard has ended all that is below it.

        What is answered or spooled from now on is still to be told. Without a farewell it tells of
        our death, and nothing more reaches it. Either is done by the guard alone, for as long as it
        takes. A second call does nothing.
        """
        if self._cleared is None or self._gone is None:
            return
        self._died = _nothing
        if farewell:
            self._write(guard.FAREWELL, b"")
        else:
            self.hang_up()
        try:
            await asyncio.wait_for(self._cleared.wait(), CLOSE_SECONDS)
        except TimeoutError:
            _LOG.error("the guard did not end all in %s s and is killed", CLOSE_SECONDS)
            self.kill()
            await self._gone.wait()

    def hang_up(self) -> None:
        """Let the guard take us for dead; nothing more reaches it. Only for one that is closed."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    async def gone(self) -> None:
        """Wait until the guard has ended, where there is one; it does so only after our end."""
        if self._gone is not None:
            await self._gone.wait()

    def kill(self) -> None:
        """SIGKILL the guard; its death is told like any other."""
        if self._pidfd >= 0:
            self._kill()

    def _tell(self, kind: int, tokens: Sequence[Token]) -> None:
        body = b"".join(tokens)
        assert len(body) == TOKEN_BYTES * len(tokens), "a token has 16 bytes"
        if body:
            self._write(kind, body)

    def _write(self, kind: int, body: bytes) -> None:
        if self._pipe < 0:
            return
        data = guard.RECORD.pack(kind, len(body)) + body
        try:
            while len(data) > (written := self._write_some(data)):
                data = data[written:]
        except BrokenPipeError:
            _LOG.debug("the guard is gone; its death is being told")

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._pipe, data)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._pipe, select.POLLOUT)
            if not poll.poll(STALL_SECONDS * 1000):
                _LOG.error("the guard has read nothing for %s s and is killed", STALL_SECONDS)
                self._kill()
                raise BrokenPipeError from None
            return 0

    def _kill(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _clear(self) -> None:
        """Nothing is left below the guard, or the guard itself is gone."""
        assert self._cleared is not None
        asyncio.get_running_loop().remove_reader(self._watch)
        self._cleared.set()

    def _ended(self) -> None:
        assert self._process is not None
        assert self._gone is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        loop.remove_reader(self._watch)
        status = self._process.wait()
        self._release()
        self._gone.set()
        if self._cleared is not None:
            self._cleared.set()
        if self._died is not _nothing:
            which = "nursery" if status == guard.NURSERY_LOST_EXIT else "guard"
            _LOG.error("the %s ended unasked, and all children with it", which)
        self._died()

    def _release(self) -> None:
        for descriptor in (self._pipe, self._pidfd, self._watch):
            if descriptor >= 0:
                os.close(descriptor)
        self._pipe = self._pidfd = self._watch = -1


def _nothing() -> None:
    """What follows a death that was asked for."""
