"""The guard: a small process that outlives the supervisor, kills what it left, and tells of it.

A program of its own in an isolated interpreter, without site-packages: beside `kernel` and `ending`
it imports the standard library only, and of that as little as it can. It is the subreaper of
everything below it, so that *it has no children left* proves that nothing of the worker runs any
more. It reports nothing before that is so (or can be waited for no longer).

A farewell asks it to end all that is below it. It says that this is done by closing a pipe, and
hears the supervisor out: what is answered then, and what goes to the spool. At the supervisor's end
it reports what is left of that, and is silent where nothing is.

The pipe from the supervisor carries records: one byte of kind, four of length (little endian),
then tokens of 16 bytes each, or JSON.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import time

from holdfast.engines import ending, kernel

STARTED, SPOOLED, DONE, SESSION, FAREWELL = 1, 2, 3, 4, 5
RECORD = struct.Struct("<BI")
TOKEN = struct.Struct("16s")

SECRET_PREFIXES = ("HOLDFAST_SECRET", "HOLDFAST_TOKEN")
"""Variables whose names begin so never reach the nursery, nor what it forks."""

NURSERY_LOST_EXIT = 3

_READ_BYTES = 64 * 1024
_KILL_SECONDS_MAX = 10.0
_REPORT_SECONDS_MAX = 30.0
_TRY_SECONDS_MAX = 2.0
_PAUSE_SECONDS = 0.05
_PAUSE_SECONDS_MAX = 2.0
_ANSWER_BYTES_MAX = 4096


class Ledger:
    """What the supervisor has told: the tokens that may run, and whom to tell of its end."""

    __slots__ = ("_rest", "orderly", "session", "spooled", "started")

    def __init__(self) -> None:
        self._rest = b""
        self.started: dict[bytes, None] = {}
        self.spooled: dict[bytes, None] = {}
        self.session = b""
        self.orderly = False

    def feed(self, data: bytes) -> None:
        """Read records; a record that is cut off waits for its rest."""
        data = self._rest + data if self._rest else data
        at = 0
        while len(data) - at >= RECORD.size:
            kind, length = RECORD.unpack_from(data, at)
            end = at + RECORD.size + length
            if end > len(data):
                break
            self._record(kind, data[at + RECORD.size : end])
            at = end
        self._rest = data[at:]

    def _record(self, kind: int, body: bytes) -> None:
        if kind == SESSION:
            self.session = body
        elif kind == FAREWELL:
            self.orderly = True
        elif kind in (STARTED, SPOOLED, DONE):
            tokens = dict.fromkeys(token for (token,) in TOKEN.iter_unpack(body))
            if kind == STARTED:
                self.started.update(tokens)
            elif kind == SPOOLED:
                self.spooled.update(tokens)
            else:
                for token in tokens:
                    self.started.pop(token, None)
                    self.spooled.pop(token, None)

    @property
    def settled(self) -> bool:
        """Whether nothing is left of which the coordinator had to hear."""
        return not self.started and not self.spooled

    def report(self) -> tuple[str, bytes]:
        """Return the URL and the body of the report; ("", b"") where there was no session."""
        import json

        if not self.session:
            return "", b""
        facts = json.loads(self.session)
        url = facts.pop("url")
        facts["started"] = [token.hex() for token in self.started]
        facts["spooled"] = [token.hex() for token in self.spooled]
        return url, json.dumps(facts).encode()


def main(arguments: list[str]) -> int:
    """Guard one supervisor; returns the exit status.

    `arguments`: the descriptor of the pipe, that which is closed when nothing is left below us,
    that of the nursery, then the command line of the nursery, to which our pid is added.
    """
    pipe, cleared, inherited = map(int, arguments[:3])
    os.set_inheritable(pipe, False)
    os.set_inheritable(cleared, False)
    _outlive()
    nursery = _start(arguments[3:])
    # The supervisor hears the end of the nursery there, and is not to hear us instead.
    os.close(inherited)
    ledger = Ledger()
    told = _listen(pipe, nursery, ledger)
    _kill_all()
    os.close(cleared)
    if not told:
        return NURSERY_LOST_EXIT
    if ledger.orderly:
        _hear_out(pipe, ledger)
        if ledger.settled:
            return 0
    _step_aside()
    url, body = ledger.report()
    return 0 if not url or _report(url, body) else 1


def _outlive() -> None:
    """Adopt orphans, and outlive what a terminal or a service supervisor sends to all."""
    kernel.become_subreaper()
    kernel.name_process("holdfast-guard")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _start(command: list[str]) -> int:
    """Start the nursery; returns its pid."""
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(SECRET_PREFIXES)}
        os.execve(command[0], [*command, str(guard)], kept)
    finally:
        os._exit(127)


def _listen(pipe: int, nursery: int, ledger: Ledger) -> bool:
    """Read the pipe until the supervisor says farewell or is gone (True), or the nursery is."""
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    alive = _reap(nursery)
    while alive:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if pipe in ready:
            data = os.read(pipe, _READ_BYTES)
            ledger.feed(data)
            if not data or ledger.orderly:
                return True
        if wake_read in ready:
            os.read(wake_read, _READ_BYTES)
        alive = _reap(nursery)
    # Where supervisor and nursery ended together, the supervisor's end is what counts.
    while select.select([pipe], [], [], 0)[0]:
        data = os.read(pipe, _READ_BYTES)
        if not data:
            return True
        ledger.feed(data)
    return ledger.orderly


def _hear_out(pipe: int, ledger: Ledger) -> None:
    """Read the pipe until the supervisor is gone."""
    while data := os.read(pipe, _READ_BYTES):
        ledger.feed(data)


def _reap(nursery: int) -> bool:
    """Reap orphans that ended; tells whether the nursery still lives."""
    alive = True
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return alive
        alive = alive and pid != nursery


def _kill_all() -> bool:
    """End every descendant until none is left; False where one outlives the bound."""
    deadline = time.monotonic() + _KILL_SECONDS_MAX
    pause = 0.001
    while time.monotonic() < deadline:
        if ending.strike():
            return True
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return False


def _step_aside() -> None:
    """Let go of what the supervisor's own starter may wait for: its streams and its directory."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _report(url: str, body: bytes) -> bool:
    """Post the report until it is answered definitely, within a bound; tells whether it was."""
    deadline = time.monotonic() + _REPORT_SECONDS_MAX
    pause = _PAUSE_SECONDS
    while time.monotonic() < deadline:
        try:
            status = post(url, "/v1/deaths", body)
        except (OSError, ValueError):
            status = 0
        if 200 <= status < 500 and status not in (408, 429):
            return True
        time.sleep(pause)
        pause = min(pause * 2, _PAUSE_SECONDS_MAX)
    return False


def post(url: str, path: str, body: bytes) -> int:
    """POST JSON and return the status of the answer. Raises OSError, ValueError."""
    import socket
    from urllib.parse import urlsplit

    if url.startswith("unix:"):
        host, link = "localhost", socket.socket(socket.AF_UNIX)
        link.settimeout(_TRY_SECONDS_MAX)
        address = url.removeprefix("unix:").removeprefix("//")
        try:
            link.connect(address)
        except OSError:
            link.close()
            raise
    else:
        parts = urlsplit(url)
        tls = parts.scheme in ("https", "wss")
        host = parts.netloc.rpartition("@")[2]
        where = (parts.hostname or "", parts.port or (443 if tls else 7700))
        link = socket.create_connection(where, _TRY_SECONDS_MAX)
        if tls:
            import ssl

            link = ssl.create_default_context().wrap_socket(link, server_hostname=parts.hostname)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with link:
        link.sendall(head.encode() + body)
        answer = b""
        while b"\r\n" not in answer and len(answer) < _ANSWER_BYTES_MAX:
            piece = link.recv(_ANSWER_BYTES_MAX)
            if not piece:
                break
            answer += piece
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0
