"""The reserve: real blocks, given up and taken again."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from holdfast.stores.ballast import Ballast


def test_taken_given_up_and_taken_again(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "x.db", size_bytes=1 << 20)
    assert not ballast.is_held
    assert not ballast.release()
    assert ballast.take()
    assert ballast.is_held
    assert ballast.path.stat().st_blocks * 512 >= 1 << 20
    assert ballast.take()
    assert ballast.release()
    assert not ballast.path.exists()
    assert ballast.take()


def test_it_is_not_taken_where_room_is_short(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "x.db", size_bytes=1 << 20)
    assert not ballast.take(room_bytes=ballast.free_bytes())
    assert not ballast.path.exists()
    assert ballast.free_bytes() > 0


def test_half_a_reserve_is_made_whole(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "x.db", size_bytes=1 << 20)
    ballast.path.write_bytes(b"half")
    assert not ballast.is_held
    assert ballast.take()
    assert ballast.is_held


NO_ROOM = """
    import resource, sys
    from pathlib import Path
    from holdfast.stores.ballast import Ballast

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    ballast = Ballast(Path(sys.argv[1]), size_bytes=1 << 20)
    print(ballast.take(), ballast.path.exists())
"""


def test_a_disk_that_turns_out_full_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NO_ROOM), str(tmp_path / "x.db")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "False False\n", done.stderr
