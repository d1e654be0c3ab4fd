"""What a worker could not deliver is delivered by its next life, and not run again."""

from __future__ import annotations

from pathlib import Path

from holdfast.lab.faults.proxy_thread import ProxyThread
from holdfast.lab.faults.tcp import HalfOpen
from holdfast.transports import endpoint
from holdfast.worker.spool import FileSpool
from tests.conftest import Eventually
from tests.integration import bodies
from tests.integration.conftest import Seen, StartFleet

OUTCOMES = 100


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
