"""The supervisor's end of the nursery: asks for children, hears of their beginnings and ends.

Where this process has no descriptors left a child is not asked for, and one that was asked for is
not lost: a place for its pidfd is kept from then on, and where another thread takes that, what the
nursery says waits in the socket until there is room.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from holdfast.engines.calling import heard
from holdfast.engines.packets import REQUEST_BYTES_MAX, Charge, Exited, Forked, pack

_BOOT = (
    "import json, sys; sys.path.append(sys.argv[1]); from holdfast.engines.nursery import main; "
    "sys.path[:] = json.loads(sys.argv[2]); sys.exit(main(sys.argv[3:]))"
)
_ROOT = str(Path(__file__).parents[2])
_MESSAGES_MAX = 64
"""Messages read at one wake-up."""
_ROOM_SECONDS = 0.05
"""Until a request is sent again for which the kernel had no room, or a child read."""
LOOK_SECONDS = 5.0
LOOKS_MAX = 3
"""A nursery that has said nothing of a child at so many looks does not work any more."""
_DESCRIPTOR = struct.Struct("i")
_NO_ROOM = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)


class NurseryLink:
    """The socket to the nursery. `forked` gets the child's pidfd, which becomes its own.

    `lost` is called when nobody holds the other end any more, which is the end of all children;
    `stuck` where a child that was asked for does not come, as where the nursery was stopped.
    `failed` is handed whatever breaks here.
    """

    def __init__(
        self,
        *,
        forked: Callable[[Forked, int], None],
        exited: Callable[[Exited], None],
        lost: Callable[[], None],
        stuck: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._lost = lost
        self._stuck = stuck
        self._failed = failed
        self._forked = forked
        self._exited = exited
        self._decoder = msgspec.msgpack.Decoder(Forked | Exited)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        """Requests that found no room: at most one for each lane."""
        self._later: asyncio.TimerHandle | None = None
        self._deaf: asyncio.TimerHandle | None = None
        """Set while a child waits to be read for which there was no room."""
        self._unborn: dict[int, int] = {}
        """Children that were asked for and not heard of: serial, and at how many looks."""
        self._looking: asyncio.TimerHandle | None = None
        self._places: list[int] = []
        """As many descriptors to spare."""

    @property
    def inherit(self) -> int:
        """The descriptor that the nursery serves."""
        return self._theirs.fileno()

    def command(self, python: str) -> list[str]:
        """Return the command line of the nursery; children find modules where this process does.

        What it imports itself is not hidden by a file of the user's that has the same name.
        """
        path = [os.getcwd(), *(each for each in sys.path if each not in ("", os.getcwd()))]
        return [python, "-P", "-c", _BOOT, _ROOT, json.dumps(path), str(self.inherit)]

    def open(self) -> None:
        """Listen; the nursery has its own copy of its end by now."""
        self._theirs.close()
        self._listen()

    def close(self) -> None:
        """Stop listening, and drop what was asked for."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._ours)
        loop.remove_writer(self._ours)
        for timer in (self._later, self._looking, self._deaf):
            if timer is not None:
                timer.cancel()
        self._ours.close()
        self._theirs.close()
        for _, descriptors in self._waiting:
            _close(descriptors)
        self._waiting.clear()
        _close(self._places)
        self._places.clear()

    def fork(self, charge: Charge, descriptors: Sequence[int]) -> None:
        """Ask for a child, who gets copies of the descriptors. They may be closed on return.

        Raises OSError where this process can open no more; nothing was asked for then.
        """
        copies: list[int] = []
        try:
            # What was opened before one fails is in the list.
            copies.extend(os.dup(each) for each in descriptors)
            self._places.append(os.dup(self._ours.fileno()))
        except OSError:
            _close(copies)
            raise
        self._unborn[charge.serial] = 0
        self._waiting.append((pack(charge), copies))
        self._write()
        if self._looking is None:
            self._look_later()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(LOOK_SECONDS, heard, self._failed, self._look)

    def _look(self) -> None:
        """Count for how long children do not come, by looks: a stop of this process is one."""
        self._looking = None
        for serial in self._unborn:
            self._unborn[serial] += 1
        if any(looks > LOOKS_MAX for looks in self._unborn.values()):
            self._stuck()
        elif self._unborn:
            self._look_later()

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            data, descriptors = self._waiting[0]
            try:
                socket.send_fds(self._ours, [data], descriptors)
            except BlockingIOError:
                loop.add_writer(self._ours, heard, self._failed, self._write)
                return
            except (BrokenPipeError, ConnectionResetError):
                pass  # The nursery is gone, and so are these lives: there is a new one soon.
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                # The socket would call that writable, and have us spin.
                loop.remove_writer(self._ours)
                self._later = loop.call_later(_ROOM_SECONDS, heard, self._failed, self._write)
                return
            self._waiting.popleft()
            _close(descriptors)
        loop.remove_writer(self._ours)

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._ours, heard, self._failed, self._read)

    def _read(self) -> None:
        for _ in range(_MESSAGES_MAX):
            # Looked at first: a place is given up for a pidfd, and not for a mere wake-up.
            try:
                data = self._ours.recv(REQUEST_BYTES_MAX, socket.MSG_PEEK)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(self._ours)
                self._lost()
                return
            message = self._decoder.decode(data)
            descriptors: list[int] = []
            if isinstance(message, Forked) and message.pid and not self._receive(descriptors):
                self._unborn[message.serial] = 0
                self._listen_later()
                return
            self._ours.recv(REQUEST_BYTES_MAX)
            self._unborn.pop(message.serial, None)
            self._keep_places()
            if isinstance(message, Forked):
                self._forked(message, descriptors[0] if descriptors else -1)
            else:
                self._exited(message)

    def _receive(self, descriptors: list[int]) -> bool:
        """Add the pidfd of the next message, which stays unread; False where there is no room.

        Another thread may have been faster at the place that was kept.
        """
        if self._places:
            os.close(self._places.pop())
        # `socket.recv_fds` passes no flags on.
        room = socket.CMSG_LEN(_DESCRIPTOR.size)
        _, ancillary, flags, _ = self._ours.recvmsg(REQUEST_BYTES_MAX, room, socket.MSG_PEEK)
        descriptors += (_DESCRIPTOR.unpack(data)[0] for _, _, data in ancillary)
        return bool(descriptors) or not flags & socket.MSG_CTRUNC

    def _listen_later(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._ours)
        self._deaf = loop.call_later(_ROOM_SECONDS, heard, self._failed, self._listen)

    def _keep_places(self) -> None:
        """Have one descriptor to spare for each child that is to come, where there is room."""
        while len(self._places) > len(self._unborn):
            os.close(self._places.pop())
        while len(self._places) < len(self._unborn):
            try:
                self._places.append(os.dup(self._ours.fileno()))
            except OSError:
                return  # Whose place is missing is read once there is one.


def _close(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)
