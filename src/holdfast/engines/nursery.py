"""The nursery: a warm, single-threaded process that forks children on request, each with a minder.

It has imported what every child needs, so that a child starts in about two milliseconds and shares
its pages. Between it and each child stands a minder, who tells of the child; the nursery only
speaks for a minder that was killed. It never runs user code.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import signal
import socket
import sys
import traceback
from typing import NoReturn

import msgspec

from holdfast.engines import child, kernel, minder
from holdfast.engines.packets import REQUEST_BYTES_MAX, Charge, Exited, Forked, tell


def main(arguments: list[str]) -> NoReturn:
    """Serve requests until the guard ends this process.

    `arguments`: the descriptor of the requests, and the pid of the guard.
    """
    control, guard_pid = map(int, arguments)
    kernel.die_with_parent(guard_pid)
    kernel.name_process("holdfast-nurse")
    # A child has no handler for its first moments: the signal must not end it then.
    signal.signal(child.INTERRUPT_SIGNAL, signal.SIG_IGN)
    faulthandler.enable(file=2, all_threads=False)
    gc.collect()
    gc.freeze()
    Nursery(socket.socket(fileno=control)).serve()


class Nursery:
    """The minders that live, by their pidfd."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._decoder = msgspec.msgpack.Decoder(Charge)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._minders: dict[int, tuple[int, int, minder.Slate]] = {}
        """pidfd -> (serial, pid, what the child shares with us)"""

    def serve(self) -> NoReturn:
        """Fork and reap for ever."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._control.fileno():
                    self._request()
                else:
                    self._reap(descriptor)

    def _request(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, REQUEST_BYTES_MAX, 4)
        except ConnectionResetError:
            # It was killed with words of ours unread.
            data = b""
        if not data:
            # The supervisor is gone. The guard knows, and ends what is here.
            self._poll.unregister(self._control)
            return
        charge = self._decoder.decode(data)
        try:
            self._fork(charge, tuple(descriptors))
        except OSError as error:
            tell(self._control, Forked(charge.serial, 0, str(error)))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, charge: Charge, descriptors: tuple[int, ...]) -> None:
        nursery_pid = os.getpid()
        slate = minder.Slate()
        pid = os.fork()
        if pid == 0:
            _be_minder(charge, descriptors, self._control, nursery_pid, slate)
        # Nobody else waits for it, so that the number is still this minder's.
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._minders[pidfd] = (charge.serial, pid, slate)
        self._poll.register(pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        """Reap a minder that has told of its child's end; of one that was killed, tell instead."""
        serial, pid, slate = self._minders.pop(pidfd)
        _, status = os.waitpid(pid, 0)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        if status:
            # The kernel ends the child with it, but not the others of its group.
            if slate.child:
                minder.end_group(slate.child)
            tell(self._control, Exited(serial, status))


def _be_minder(
    charge: Charge,
    descriptors: tuple[int, ...],
    control: socket.socket,
    nursery_pid: int,
    slate: minder.Slate,
) -> NoReturn:
    try:
        minder.mind(charge, descriptors, control, nursery_pid, slate)
    except BaseException:
        sys.stderr.write(traceback.format_exc())
        sys.stderr.flush()
    finally:
        os._exit(1)
