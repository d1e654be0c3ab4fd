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
