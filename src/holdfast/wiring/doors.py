"""The sockets of a coordinator: bound before it can answer, and made again where they vanish."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from types import TracebackType

from holdfast.config import CoordinatorSettings
from holdfast.errors import ConfigurationError
from holdfast.observe import logger
from holdfast.transports.endpoint import socket_path

_BACKLOG = 1024
_LOG = logger("coordinator")


class Doors:
    """The listening sockets of one coordinator, the Unix socket first; `urls` name them.

    They are bound before anything heavy is imported, so that whoever dials early only waits. Only
    who holds the lock of the state directory may make them. Raises ConfigurationError where a
    socket cannot be had.
    """

    def __init__(self, settings: CoordinatorSettings) -> None:
        self._path = socket_path(settings.state_dir)
        self._opened = ExitStack()
        try:
            try:
                unix = self._bind()
            except OSError as error:
                why = error.strerror or error
                raise ConfigurationError(
                    f"no socket can be made at {self._path}: {why}; give another --state-dir"
                ) from error
            self.sockets, self.urls = [unix], [f"unix:{self._path}"]
            if settings.port >= 0:
                tcp = self._opened.enter_context(_tcp(settings))
                host = f"[{settings.host}]" if ":" in settings.host else settings.host
                self.sockets.append(tcp)
                self.urls.append(f"http://{host}:{tcp.getsockname()[1]}")
        except BaseException:
            self._opened.close()
            raise

    def __enter__(self) -> Doors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what is still open; the Unix socket's path is removed where it is ours."""
        self._opened.close()

    def mended(self) -> socket.socket | None:
        """Return a new Unix socket where the path of ours was removed, to be served as well.

        None where all is well, or where it cannot be made again.
        """
        if self._path.exists():
            return None
        try:
            fresh = self._bind()
        except OSError as error:
            _LOG.error("%s was removed and cannot be made again: %s", self._path, error)
            return None
        _LOG.warning("%s was removed, and is made again", self._path)
        return fresh

    def _bind(self) -> socket.socket:
        self._path.unlink(missing_ok=True)
        unix = self._opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        previous = os.umask(0o177)
        try:
            unix.bind(str(self._path))
        finally:
            os.umask(previous)
        self._opened.callback(self._unlink, os.stat(self._path).st_ino)
        unix.listen()
        return unix

    def _unlink(self, inode: int) -> None:
        """Remove our socket, and not the one of who came after a deletion of the directory."""
        try:
            if os.stat(self._path).st_ino == inode:
                self._path.unlink()
        except FileNotFoundError:
            return


def _tcp(settings: CoordinatorSettings) -> socket.socket:
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # `create_server` looks too, but what it raises then has lost its meaning.
        socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigurationError(
            f"the host {host} cannot be found: {error.args[-1]}; give another with --host"
        ) from error
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; "
            "give another with --host and --port"
        ) from error
