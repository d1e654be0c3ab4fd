"""The OpenAPI document is true: what is made from it is answered as it says, all checks, stateful.

`HOLDFAST_EXAMPLES` makes more of it, as `make test-slow` does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.lab.cluster import Cluster
from holdfast.transports import endpoint

EXAMPLES = os.environ.get("HOLDFAST_EXAMPLES", "3")
CONFIG = Path(__file__).with_name("schemathesis.toml")
_SECONDS = 60 * max(2, int(EXAMPLES))


@pytest.mark.timeout(_SECONDS)
def test_what_is_made_from_the_schema_is_answered_as_it_says(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start_coordinator()
        cluster.start_worker("one", "--slots", "2")
        told = (cluster.directory / "coordinator.log").read_text()
        url = told.partition("http://")[2].split()[0].rstrip(";,.")
        assert endpoint.lives(cluster.state_dir)
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"),
            f"http://{url}/v1/openapi.json",
            *("--max-examples", EXAMPLES, "--seed", "1", "--no-color"),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
