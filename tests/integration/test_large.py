"""Large payloads between real processes: they pass through, and none holds them on the way."""

from __future__ import annotations

import hashlib
import os

from tests.integration import bodies
from tests.integration.conftest import StartFleet, forget_peak, peak_mb

_MB = 100
_GROWN_MB_MAX = 25


def test_100_mb_go_there_and_back_in_bounded_memory(start_fleet: StartFleet) -> None:
    fleet = start_fleet()
    fleet.work("one", "--slots", "1")
    child = fleet.client.submit(os.getpid).result(20)
    supervisor, coordinator = fleet.cluster.worker_pid("one"), fleet.cluster.coordinator_pid
    for pid in (coordinator, supervisor, child):
        forget_peak(pid)
    held = {"coordinator": peak_mb(coordinator), "supervisor": peak_mb(supervisor)}
    # Of what repeats itself a part might pass for the whole.
    payload = os.urandom(_MB << 20)
    returned = fleet.client.submit(bodies.join, payload, b"!").result(50)
    assert len(returned) == len(payload) + 1
    assert hashlib.sha256(returned[:-1]).digest() == hashlib.sha256(payload).digest()
    # The child has held both: what would be seen of them elsewhere is seen here.
    assert peak_mb(child) > 2 * _MB
    grown = {
        "coordinator": peak_mb(coordinator) - held["coordinator"],
        "supervisor": peak_mb(supervisor) - held["supervisor"],
    }
    assert max(grown.values()) < _GROWN_MB_MAX, grown
