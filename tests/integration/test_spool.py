"""What a worker could not deliver is delivered by its next life, and not run again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from holdfast.coordinator.kin import GUARD_SECONDS
from holdfast.lab.faults.proxy_thread import ProxyThread
from holdfast.lab.faults.tcp import HalfOpen
from holdfast.transports import endpoint
from holdfast.worker.spool import FileSpool
from tests.conftest import Eventually
from tests.integration import bodies
from tests.integration.conftest import ROOT, Seen, StartFleet

OUTCOMES = 100
SLOW_UPLOADS = """
import sys, time
from holdfast.cli import main
from holdfast.transports import blob_transfer

put = blob_transfer.put
blob_transfer.put = lambda *words: (time.sleep(3), put(*words))[1]
sys.exit(main())
"""


def test_spooled_outcomes_are_settled_and_none_is_run_again(
    start_fleet: StartFleet, seen: Seen, tmp_path: Path, eventually: Eventually
) -> None:
    fleet = start_fleet(lease_seconds=1.0)
    client, cluster = fleet.client, fleet.cluster
    release = tmp_path / "release"
    with ProxyThread(endpoint.socket_path(cluster.state_dir)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        fleet.work("remote", "--slots", str(OUTCOMES), url=url)
        futures = [
            client.submit(bodies.hold, number, seen.path, str(release))
            for number in range(OUTCOMES)
        ]
        seen.until_busy(*(future.id for future in futures))
        spool = FileSpool(cluster.directory / "remote" / "spool")
        with proxy.apply(HalfOpen()):
            release.touch()
            eventually(
                "every outcome is in the spool",
                lambda: len(spool.load()) == OUTCOMES,
                within_seconds=30,
            )
            cluster.kill_worker("remote")
        assert not any(future.done() for future in futures)
        cluster.start_worker("remote", url=url)
        assert [future.result(20) for future in futures] == list(range(OUTCOMES))
        eventually("the spool is empty again", lambda: not spool.load())
    assert {len(seen.runs_of(future.id)) for future in futures} == {1}
    assert seen.reader.begun_twice() == {}
    assert {client.status(future.id)["run"] for future in futures} == {1}


def test_what_a_worker_that_leaves_has_spooled_waits_for_its_next_life(
    start_fleet: StartFleet, seen: Seen, eventually: Eventually
) -> None:
    fleet = start_fleet(lease_seconds=30.0)
    client, cluster = fleet.client, fleet.cluster
    home = cluster.directory / "moved"
    words = ["worker", "--url", cluster.url, "--name", "moved", "--home", str(home), "--path", ROOT]
    worker = subprocess.Popen([sys.executable, "-c", SLOW_UPLOADS, *words], start_new_session=True)
    try:
        future = client.submit(bodies.large, 1_000_000, seen.path)
        seen.reader.wait_until(
            "it has run",
            lambda reader: [run.ended_ns for run in reader.runs()] not in ([], [None]),
            timeout_seconds=20,
        )
        # The first one asks it to leave, the second one not to wait for the upload.
        worker.terminate()
        eventually("it drains", lambda: "draining" in str(client.workers()))
        worker.terminate()
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        worker.wait()
    assert len(FileSpool(home / "spool").load()) == 1
    # The kernel has told of its end by then, too.
    time.sleep(GUARD_SECONDS + 0.5)
    assert "worker silent" not in [line["what"] for line in client.story(future.id)]
    cluster.start_worker("moved", "--path", ROOT)
    assert len(future.result(20)) == 1_000_000
    assert len(seen.runs_of(future.id)) == 1
    assert sum(client.status(future.id)["charges"].values()) == 0
