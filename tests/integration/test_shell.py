"""A person at a terminal: an interactive bash completes what a real coordinator knows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.integration.conftest import StartFleet
from tests.terminal import at_terminal

_SECONDS = 50
# As installed, but patient: a machine that runs all tests at once may be slow to answer.
PROGRAM = f"""#!/bin/sh
exec "{sys.executable}" -c "from holdfast.cli import completing, main
completing._LOOK_SECONDS = {_SECONDS}
main()" "$@"
"""


def test_a_tab_completes_the_id_of_a_task(tmp_path: Path, start_fleet: StartFleet) -> None:
    fleet = start_fleet()
    future = fleet.client.submit(len, "a", queue="nobody")
    future.wait_accepted(_SECONDS)
    (tmp_path / "holdfast").write_text(PROGRAM)
    (tmp_path / "holdfast").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PS1": "ready> ", "TERM": "dumb"}
    words = ["bash", "--norc", "--noprofile", "-i"]
    with at_terminal(words, tmp_path, environment, columns=200) as bash:
        bash.shows("ready> ")
        bash.type('eval "$(holdfast completion bash)"; echo do""ne\n')
        bash.shows("done\r\n")
        # Its URL has colons, at which bash parts words.
        bash.type(f"holdfast why --url {fleet.cluster.url} \t")
        bash.shows(f"{future.id} ")
        bash.type("\n")
        bash.shows("no worker is connected")


def test_top_goes_on_while_its_coordinator_is_killed(
    tmp_path: Path, start_fleet: StartFleet
) -> None:
    fleet = start_fleet()
    fleet.client.submit(len, "a", queue="nobody").wait_accepted(_SECONDS)
    words = [sys.executable, "-m", "holdfast", "top", "--interval", "0.2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""}
    with at_terminal([*words, "--url", fleet.cluster.url], tmp_path, environment) as terminal:
        terminal.shows("queued 1")
        fleet.cluster.kill_coordinator()
        terminal.shows("the coordinator is not reached; trying again")
        fleet.cluster.start_coordinator()
        fleet.client.submit(len, "b", queue="nobody").wait_accepted(_SECONDS)
        terminal.shows("queued 2")
        terminal.resize(20, 6)
        terminal.type("q")
        assert terminal.ends() == 0
        assert "Traceback" not in terminal.rest


def test_ctrl_c_leaves_top_where_nobody_answers(tmp_path: Path, start_fleet: StartFleet) -> None:
    fleet = start_fleet()
    words = [sys.executable, "-m", "holdfast", "top", "--url", fleet.cluster.url]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""}
    with at_terminal(words, tmp_path, environment) as terminal:
        terminal.shows("queued 0")
        fleet.cluster.kill_coordinator()
        terminal.shows("the coordinator is not reached")
        terminal.type("\x03")
        assert terminal.ends() == 0
        assert "interrupted" not in terminal.rest


def test_a_terminal_that_cannot_be_drawn_on_has_lines(
    tmp_path: Path, start_fleet: StartFleet
) -> None:
    fleet = start_fleet()
    words = [sys.executable, "-m", "holdfast", "top", "--interval", "0.1"]
    environment = {**os.environ, "TERM": "dumb"}
    with at_terminal([*words, "--url", fleet.cluster.url], tmp_path, environment) as terminal:
        terminal.shows("queued 0")
        terminal.shows("queued 0")
        terminal.type("\x03")
        assert terminal.ends() == 0
        assert "\x1b" not in terminal.rest
