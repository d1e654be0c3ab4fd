"""The supervisor's end of the nursery: asks for children, hears of their beginnings and ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from holdfast.engines.packets import REQUEST_BYTES_MAX, Charge, Exited, Forked, pack

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from holdfast.engines.nursery import main; sys.exit(main(sys.argv[2:]))"
)
_MESSAGES_MAX = 64
"""Messages read at one wake-up."""


class NurseryLink:
    """The socket to the nursery. `forked` gets the child's pidfd, which becomes its own.

    `lost` is called when nobody holds the other end any more, which is the end of all children.
    """

    def __init__(
        self,
        *,
        forked: Callable[[Forked, int], None],
        exited: Callable[[Exited], None],
        lost: Callable[[], None],
    ) -> None:
        self._lost = lost
        self._forked = forked
        self._exited = exited
        self._decoder = msgspec.msgpack.Decoder(Forked | Exited)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        """Requests that found no room: at most one for each lane."""

    @property
    def inherit(self) -> int:
        """The descriptor that the nursery serves."""
        return self._theirs.fileno()

    def command(self, python: str) -> list[str]:
        """Return the command line of the nursery; modules are found where this process does."""
        path = [os.getcwd(), *(each for each in sys.path if each not in ("", os.getcwd()))]
        return [python, "-c", _BOOT, json.dumps(path), str(self.inherit)]

    def open(self) -> None:
        """Listen; the nursery has its own copy of its end by now."""
        self._theirs.close()
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def close(self) -> None:
        """Stop listening, and drop what was asked for."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._ours)
        loop.remove_writer(self._ours)
        self._ours.close()
        self._theirs.close()
        self._waiting.clear()

    def fork(self, charge: Charge, descriptors: Sequence[int]) -> None:
        """Ask for a child, who gets copies of the descriptors. They may be closed on return."""
        request = (pack(charge), [os.dup(each) for each in descriptors])
        self._waiting.append(request)
        self._write()

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            data, descriptors = self._waiting[0]
            try:
                socket.send_fds(self._ours, [data], descriptors)
            except BlockingIOError:
                loop.add_writer(self._ours, self._write)
                return
            except (BrokenPipeError, ConnectionResetError):
                pass  # The nursery is gone, and so are these lives: there is a new one soon.
            self._waiting.popleft()
            for each in descriptors:
                os.close(each)
        loop.remove_writer(self._ours)

    def _read(self) -> None:
        for _ in range(_MESSAGES_MAX):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._ours, REQUEST_BYTES_MAX, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data, descriptors = b"", []
            if not data:
                asyncio.get_running_loop().remove_reader(self._ours)
                self._lost()
                return
            message = self._decoder.decode(data)
            if isinstance(message, Forked):
                self._forked(message, descriptors[0] if descriptors else -1)
            else:
                self._exited(message)
