"""The function service with real workers: local, push and pull, while workers are killed."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import dill
import httpx
import pytest

from holdfast.lab.cluster import Cluster
from holdfast.transports import endpoint
from tests.conftest import Eventually

_SECONDS = 40


class Service:
    """A client of the function service, as those who have one know it."""

    def __init__(self, client: httpx.Client) -> None:
        self.http = client

    def ask(self, method: str, path: str, **parts: Any) -> Any:
        answer = self.http.request(method, path, **parts)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def register(self, function: Any, dumps: Any = dill.dumps) -> str:
        body = {"name": "function", "payload": b64encode(dumps(function)).decode()}
        return str(self.ask("POST", "/register_function", json=body)["function_id"])

    def execute(self, function: str, *args: Any, **kwargs: Any) -> str:
        payload = b64encode(dill.dumps((args, kwargs))).decode()
        body = {"function_id": function, "payload": payload}
        return str(self.ask("POST", "/execute_function", json=body)["task_id"])

    def status(self, task: str) -> str:
        return str(self.ask("GET", f"/status/{task}")["status"])

    def result(self, task: str) -> Any:
        """Wait for a result; return (status, what it is)."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            told = self.ask("GET", f"/result/{task}")
            if told["status"] in ("COMPLETED", "FAILED"):
                return told["status"], pickle.loads(b64decode(told["result"]))
            time.sleep(0.02)
        raise AssertionError(f"{task} is {told['status']}")


@contextmanager
def served(cluster: Cluster) -> Iterator[Service]:
    transport = httpx.HTTPTransport(uds=str(endpoint.socket_path(cluster.state_dir)))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=_SECONDS) as http:
        yield Service(http)


SCRIPT: dict[str, Any] = {"__name__": "__main__"}
"""What a client's script defines: it goes by value, and no worker has such a module."""
exec(
    """
import time

def double(number, *, plus=0):
    return 2 * number + plus

def fails(text):
    raise ValueError(text)

def naps(seconds):
    time.sleep(seconds)
    return seconds

def unpicklable():
    return (each for each in ())

def recurse(depth):
    return 0 if depth == 0 else 1 + recurse(depth - 1)
""",
    SCRIPT,
)


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_functions_of_a_client_run_on_workers_that_come_and_are_killed(
    mode: str, tmp_path: Path, eventually: Eventually
) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start_coordinator()
        with served(cluster) as service:
            function = service.register(SCRIPT["double"])
            early = service.execute(function, 4, plus=1)
            assert service.status(early) == "QUEUED"
            words = ("--mode", mode, "--slots", "2")
            for name in ("one", "two"):
                cluster.start_worker(name, *words)
            assert service.result(early) == ("COMPLETED", 9)
            by_cloudpickle = service.register(SCRIPT["double"], cloudpickle.dumps)
            assert service.result(service.execute(by_cloudpickle, 5)) == ("COMPLETED", 10)
            failed = service.result(service.execute(service.register(SCRIPT["fails"]), "it broke"))
            assert failed == ("FAILED", "it broke")
            state, text = service.result(service.execute(service.register(SCRIPT["unpicklable"])))
            assert state == "FAILED"
            assert "cannot be pickled" in text
            deep = service.execute(service.register(SCRIPT["recurse"]), 500)
            assert service.result(deep) == ("COMPLETED", 500)
            napping = service.register(SCRIPT["naps"])
            tasks = [service.execute(napping, 0.3) for _ in range(12)]
            eventually("some run", lambda: service.status(tasks[0]) == "RUNNING")
            for name in ("one", "two"):
                cluster.kill_worker(name)
            cluster.start_worker("three", *words)
            cluster.kill_coordinator()
            cluster.start_coordinator()
            with served(cluster) as again:
                assert [again.result(task) for task in tasks] == [("COMPLETED", 0.3)] * 12


def test_ten_megabytes_go_there_and_back(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start_coordinator()
        cluster.start_worker("one", "--slots", "1")
        with served(cluster) as service:
            large = bytes(range(256)) * 40_000
            function = service.register(lambda data: data[::-1])
            assert service.result(service.execute(function, large)) == ("COMPLETED", large[::-1])


def test_local_workers_of_one_command(tmp_path: Path) -> None:
    words = ["up", "--port", "0", "--workers", "2", "--slots", "1", "--json"]
    words += ["--dialect", "completed=COMPLETE", "--state-dir", str(tmp_path / "state")]
    command = [sys.executable, "-P", "-m", "holdfast", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            use(process.stdout.readline())
        finally:
            process.terminate()
        assert process.wait(_SECONDS) == 0


def use(told: str) -> None:
    url = next(u for u in json.loads(told)["urls"] if "http" in u)
    with httpx.Client(base_url=url, timeout=_SECONDS) as http:
        service = Service(http)
        assert service.ask("GET", "/")["message"]
        function = service.register(SCRIPT["double"])
        tasks = [service.execute(function, n) for n in range(40)]
        deadline = time.monotonic() + _SECONDS
        while any(service.status(task) != "COMPLETE" for task in tasks):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        told = [service.ask("GET", f"/result/{task}")["result"] for task in tasks]
        assert [pickle.loads(b64decode(each)) for each in told] == [2 * n for n in range(40)]
