"""What tasks print goes where it was said, within a bound, and never ends a task."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.worker.printing import Printer


def test_to_our_own_streams(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = Printer(None)
    printer(0, False, b"said \xff\n")
    printer(0, True, b"complained\n")
    told = capfdbinary.readouterr()
    assert (told.out, told.err) == (b"said \xff\n", b"complained\n")


def test_a_log_and_the_one_before_it_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_bytes(b"12345")
    printer = Printer(path, bytes_max=8)
    printer(0, False, b"678")
    printer(0, True, b"9")
    assert path.read_bytes() == b"9"
    assert (tmp_path / "worker.log.1").read_bytes() == b"12345678"
    printer(0, False, b"much more than its bound")
    printer(0, False, b"x")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["worker.log", "worker.log.1"]


def test_a_sink_that_is_gone_loses_words_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "worker.log"
    printer = Printer(path)
    printer(0, False, b"lost")
    path.parent.mkdir()
    printer(0, False, b"kept")
    assert path.read_bytes() == b"kept"
