"""Where the coordinator of a state directory listens: a small file beside the database.

The file is a hint and never truth: the lock on `coordinator.lock` says whether a coordinator
lives, and a dial says whether it answers. It is replaced as a whole, so that it is never read
half-written.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path

import msgspec

from holdfast.errors import ConfigurationError

_NAME = "endpoint.json"
_SOCKET = "coordinator.sock"
_SOCKET_PATH_BYTES_MAX = 100
"""What `sun_path` holds is 108 bytes on Linux and 104 on macOS."""


class Endpoint(msgspec.Struct, frozen=True):
    """How to reach the coordinator of a state directory, and who it is."""

    url: str
    pid: int
    version: str
    python: str


def publish(state_dir: Path, endpoint: Endpoint) -> None:
    """Write the file, as a whole."""
    fresh = state_dir / f"{_NAME}.{os.getpid()}"
    # A path need not be UTF-8, which msgspec refuses; in ASCII any text is as it was.
    fresh.write_text(json.dumps(msgspec.to_builtins(endpoint)), encoding="ascii")
    fresh.replace(state_dir / _NAME)


def keep(state_dir: Path, endpoint: Endpoint) -> bool:
    """Write the file again where it does not say so any more; whether that had to be.

    Only who holds the lock of the directory may. Raises OSError where it cannot be written.
    """
    if read(state_dir) == endpoint:
        return False
    publish(state_dir, endpoint)
    return True


def read(state_dir: Path) -> Endpoint | None:
    """Return what the file says, None where there is none or it cannot be read as one."""
    try:
        return msgspec.convert(json.loads((state_dir / _NAME).read_bytes()), Endpoint)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None


def lives(state_dir: Path) -> bool:
    """Whether a coordinator holds the state directory; a pid could be a zombie's or another's."""
    try:
        lock = os.open(state_dir / "coordinator.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def withdraw(state_dir: Path, pid: int) -> None:
    """Remove the file, where it is still that process's."""
    endpoint = read(state_dir)
    if endpoint is not None and endpoint.pid == pid:
        (state_dir / _NAME).unlink(missing_ok=True)


def socket_path(state_dir: Path) -> Path:
    """Return where the unix socket of a state directory is, short enough for the kernel.

    Beside the database, or, where that path is too long, in a directory of this user alone below
    the directory for temporary files, or below `/tmp` where that is deep as well. Raises
    ConfigurationError where that directory cannot be had, or another user owns it.
    """
    path = state_dir.resolve() / _SOCKET
    if _fits(path):
        return path
    from tempfile import gettempdir

    name = f"{hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:24]}.sock"
    own = Path(gettempdir()) / f"holdfast-{os.getuid()}"
    if not _fits(own / name):
        own = Path("/tmp") / own.name
    try:
        own.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"no directory {own} can be made for a socket: {error.strerror}; "
            "give a shorter --state-dir"
        ) from error
    if own.stat().st_uid != os.getuid() or own.is_symlink():
        raise ConfigurationError(f"{own} belongs to somebody else: give a shorter --state-dir")
    return own / name


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX
