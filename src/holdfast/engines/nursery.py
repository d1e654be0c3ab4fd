"""The nursery: a warm, single-threaded process that forks children on request.

It has imported what every child needs, so that a child starts in about a millisecond and shares
its pages. It alone waits for children: it ends a dead child's process group while the zombie
still keeps that number from being used anew, and reports the exit status. It never runs user code.
"""

from __future__ import annotations

import errno
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

from holdfast.engines import child, kernel
from holdfast.engines.packets import REQUEST_BYTES_MAX, Charge, Exited, Forked, pack


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
    """The children that live, by their pidfd."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._decoder = msgspec.msgpack.Decoder(Charge)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[int, tuple[int, int]] = {}
        """pidfd -> (serial, pid)"""

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
            self._tell(Forked(charge.serial, 0, str(error)))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, charge: Charge, descriptors: tuple[int, ...]) -> None:
        nursery_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_child(charge, descriptors, nursery_pid)
        # Nobody else waits for it, so that the number is still this child's.
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children[pidfd] = (charge.serial, pid)
        self._poll.register(pidfd, select.POLLIN)
        self._tell(Forked(charge.serial, pid), pidfd)

    def _be_child(self, charge: Charge, descriptors: tuple[int, ...], nursery_pid: int) -> NoReturn:
        try:
            self._control.detach()
            child.run(charge, descriptors, nursery_pid)
        except BaseException:
            sys.stderr.write(traceback.format_exc())
            sys.stderr.flush()
        finally:
            os._exit(1)

    def _reap(self, pidfd: int) -> None:
        serial, pid = self._children.pop(pidfd)
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # It had no group of its own yet, or only other users' processes are left in it.
        _, status = os.waitpid(pid, 0)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        self._tell(Exited(serial, status))

    def _tell(self, message: Forked | Exited, *descriptors: int) -> None:
        try:
            socket.send_fds(self._control, [pack(message)], list(descriptors))
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
