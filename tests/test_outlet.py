"""What is printed and logged leaves in order, without keeping anybody waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from holdfast import outlet as room
from holdfast.outlet import Outlet, standard_streams

SECONDS = 10.0


class Sink:
    """Keeps what it was given; stalls while it is told to."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.reading = threading.Event()
        self.reading.set()
        self.asked = threading.Event()
        self.broken = False

    def __call__(self, data: bytes) -> None:
        self.asked.set()
        assert self.reading.wait(SECONDS)
        if self.broken:
            raise OSError("it is gone")
        self.got.append(data)

    @contextmanager
    def stalled(self, outlet: Outlet) -> Iterator[None]:
        """Take nothing for a while; the outlet's thread stands still with the piece `first`."""
        self.reading.clear()
        self.asked.clear()
        outlet.put(b"first")
        assert self.asked.wait(SECONDS)
        yield
        self.reading.set()
        assert outlet.flush(SECONDS)


def test_pieces_leave_in_order() -> None:
    sink = Sink()
    outlet = Outlet(sink)
    pieces = [b"%d" % number for number in range(1000)]
    for piece in pieces:
        outlet.put(piece)
    assert outlet.flush(SECONDS)
    assert sink.got == pieces


def test_who_puts_does_not_wait_for_a_sink_that_stalls() -> None:
    sink = Sink()
    outlet = Outlet(sink)
    with sink.stalled(outlet):
        outlet.put(b"second")
        assert not outlet.flush(0.01)
    assert sink.got == [b"first", b"second"]


def test_what_finds_no_room_is_counted_and_told_in_its_place() -> None:
    sink = Sink()
    outlet = Outlet(sink, bytes_max=100)
    notice = b"\n[holdfast: 130 bytes of output are not shown here]\n"
    with sink.stalled(outlet):
        outlet.put(b"x" * 90)
        outlet.put(b"y" * 60)
        outlet.put(b"z" * 70)
    assert sink.got == [b"first", b"x" * 90, notice]
    with sink.stalled(outlet):
        outlet.put(b"y" * 130)
        # What has room after all comes behind the notice.
        outlet.put(b"small")
    assert sink.got[3:] == [b"first", notice, b"small"]


def test_what_would_never_find_room_is_told_of_at_once() -> None:
    sink = Sink()
    outlet = Outlet(sink, bytes_max=100)
    outlet.put(b"x" * 130)
    assert outlet.flush(SECONDS)
    assert sink.got == [b"\n[holdfast: 130 bytes of output are not shown here]\n"]


def test_who_puts_much_is_told_when_little_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MUCH_BYTES", 100)
    monkeypatch.setattr(room, "LITTLE_BYTES", 10)
    sink = Sink()
    outlet = Outlet(sink)
    relieved = threading.Event()
    with sink.stalled(outlet):
        outlet.put(b"x" * 95)
        assert not outlet.is_crowded(relieved.set)
        outlet.put(b"y")
        assert outlet.is_crowded(relieved.set)
        assert not relieved.is_set()
    assert relieved.wait(SECONDS)
    relieved.clear()
    outlet.put(b"z")
    assert outlet.flush(SECONDS)
    assert not relieved.is_set()


def test_a_sink_that_fails_loses_that_piece_and_no_other() -> None:
    sink = Sink()
    outlet = Outlet(sink)
    sink.broken = True
    outlet.put(b"lost")
    assert outlet.flush(SECONDS)
    sink.broken = False
    outlet.put(b"kept")
    assert outlet.flush(SECONDS)
    assert sink.got == [b"kept"]


def test_streams_that_lead_to_two_places_have_an_outlet_each(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    streams = standard_streams()
    assert streams.out is not streams.err
    streams.out.put(b"said \xff\n")
    streams.err.put(b"complained\n")
    streams.flush(SECONDS)
    told = capfdbinary.readouterr()
    assert (told.out, told.err) == (b"said \xff\n", b"complained\n")


def run(program: str, **streams: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", f"from holdfast.outlet import *\n{program}"],
        stdin=subprocess.DEVNULL,
        **streams,
    )


def test_both_streams_of_a_terminal_keep_their_order() -> None:
    program = """
streams = standard_streams()
for number in range(1000):
    streams.out.put(b"out %d\\n" % number)
    streams.err.put(b"err %d\\n" % number)
streams.flush(10)
"""
    process = run(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    told, _ = process.communicate(timeout=SECONDS)
    assert told == b"".join(b"out %d\nerr %d\n" % (number, number) for number in range(1000))


def test_a_process_ends_although_nobody_reads_its_streams() -> None:
    program = """
streams = standard_streams()
streams.out.put(b"x" * 1_000_000)
streams.err.put(b"x" * 1_000_000)
streams.flush(0.1)
"""
    process = run(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.wait(SECONDS) == 0
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()


def test_a_stream_that_does_not_block_is_waited_for() -> None:
    program = """
os.set_blocking(1, False)
streams = standard_streams()
for number in range(20):
    streams.out.put(b"%d" % (number % 10) * 50_000)
assert not streams.out.flush(0.1)
os.write(2, b"!")
assert streams.out.flush(10)
"""
    process = run(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stderr.read(1) == b"!"
    told, _ = process.communicate(timeout=SECONDS)
    assert told == b"".join(b"%d" % (number % 10) * 50_000 for number in range(20))


def test_streams_that_were_closed_before_we_began_swallow_all() -> None:
    program = """
file = open("/dev/null", "wb", buffering=0)
assert file.fileno() == 1, "its number is given anew"
streams = standard_streams()
streams.out.put(b"x")
streams.err.put(b"x")
streams.flush(10)
"""
    words = f'exec {sys.executable} -c "$PROGRAM" >&- 2>&-'
    whole = f"from holdfast.outlet import *\n{program}"
    done = subprocess.run(
        ["sh", "-c", words], env=os.environ | {"PROGRAM": whole}, check=False, timeout=SECONDS
    )
    assert done.returncode == 0


FILLING = """
import os
from holdfast.outlet import fill_standard_descriptors

for number in (0, 2):
    os.close(number)
for inheritable in (False, True):
    fill_standard_descriptors(inheritable=inheritable)
    os.set_inheritable(2, True)  # It stands, and is left as it is.
kinds = [os.path.sameopenfile(number, os.open(os.devnull, os.O_RDWR)) for number in (0, 1, 2)]
print(kinds, [os.get_inheritable(number) for number in (0, 1, 2)])
"""


def test_standard_descriptors_that_are_closed_are_filled_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLING], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[True, False, True] [False, True, True]\n"
