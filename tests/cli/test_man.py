"""`holdfast man`: through `man` at a terminal, as plain text elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from holdfast.cli.app import Exit
from tests.cli.conftest import CommandLine
from tests.terminal import at_terminal

MAN = """#!/bin/sh
printf '%s ' "$@" > "$0.asked"
cat > "$0.read"
echo shown by man
exit {code}
"""


def run_at_terminal(folder: Path, *words: str, code: int | None) -> str:
    """Run `holdfast man` where a `man` ends with this code, or where there is none."""
    place = folder / "bin"
    place.mkdir()
    if code is not None:
        (place / "man").write_text(MAN.format(code=code))
        (place / "man").chmod(0o755)
    path = f"{place}{os.pathsep}{os.defpath}" if code is not None else str(place)
    environment = {**os.environ, "PATH": path}
    command = [sys.executable, "-m", "holdfast", "man", *words]
    with at_terminal(command, folder, environment) as terminal:
        assert terminal.ends() == Exit.OK
        return terminal.rest


def test_a_terminal_shows_it_through_man(tmp_path: Path) -> None:
    assert run_at_terminal(tmp_path, "ls", code=0) == "shown by man\r\n"
    assert (tmp_path / "bin" / "man.asked").read_text() == "-l - "
    assert (tmp_path / "bin" / "man.read").read_text().startswith(".TH HOLDFAST\\-LS 1 ")


def test_without_a_man_that_can_the_text_is_printed(tmp_path: Path) -> None:
    assert "HOLDFAST-LS(1)" in run_at_terminal(tmp_path, "ls", code=16)


def test_without_man_the_text_is_printed(tmp_path: Path) -> None:
    assert "HOLDFAST(1)" in run_at_terminal(tmp_path, code=None)


def test_ctrl_c_is_the_pagers(tmp_path: Path) -> None:
    place = tmp_path / "bin"
    place.mkdir()
    pager = (
        "#!/bin/sh\ntrap 'echo heard' INT\necho begun\nread key < /dev/tty\nread key < /dev/tty\n"
    )
    (place / "man").write_text(pager)
    (place / "man").chmod(0o755)
    environment = {**os.environ, "PATH": f"{place}{os.pathsep}{os.defpath}"}
    with at_terminal([sys.executable, "-m", "holdfast", "man"], tmp_path, environment) as terminal:
        terminal.shows("begun")
        terminal.type("\x03")
        terminal.shows("heard")
        terminal.type("q\nq\n")
        assert terminal.ends() == Exit.OK
        assert "interrupted" not in terminal.rest


def test_elsewhere_the_text_or_the_source_is_printed(cli: CommandLine) -> None:
    said = cli("man", "status")
    assert (said.code, said.err) == (Exit.OK, "")
    assert said.out.startswith("HOLDFAST-STATUS(1)")
    assert "holdfast status [OPTIONS] TASK" in said.out
    assert cli("man").out.startswith("HOLDFAST(1)")
    assert cli("man", "--roff").out.startswith(".TH HOLDFAST 1 ")
    assert cli("man", "--roff", "up").out.startswith(".TH HOLDFAST\\-UP 1 ")
    assert cli("man", "no-such").code == Exit.USAGE
