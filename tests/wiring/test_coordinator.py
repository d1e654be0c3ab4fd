"""A coordinator as a process: what it leaves behind, and what it says when it cannot be."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from holdfast import wiring
from holdfast.config import CoordinatorSettings
from holdfast.errors import NoCoordinatorError
from holdfast.lab.cluster import is_zombie_or_gone
from holdfast.transports import endpoint
from tests.conftest import Eventually

_SECONDS = 30


def start(command: str, state: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", command, "--state-dir", str(state), *words],
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_it_listens(process: subprocess.Popen[str]) -> str:
    """Read what it says until it says where it listens; return that line."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Holdfast listens"):
            return line
    raise AssertionError("it ended before it listened")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("terminal")
def test_up_serves_and_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    state = tmp_path / "state"
    with start("up", state, "--port", "0", "--slots", "1") as process:
        line = wait_until_it_listens(process)
        url = line.split(" and ")[1].split(";")[0]
        with wiring.connect(url) as client:
            assert client.submit(abs, -3).result(_SECONDS) == 3
            (worker,) = client.workers()
        process.send_signal(number)
        _, said = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0
    assert "Traceback" not in said
    assert "uvicorn" not in said
    left = {path.name for path in state.iterdir()}
    assert not left & {"coordinator.sock", "endpoint.json"}
    assert is_zombie_or_gone(worker["pid"])


def test_a_socket_that_is_removed_is_made_again(tmp_path: Path, eventually: Eventually) -> None:
    state = tmp_path / "state"
    with start("up", state, "--port", "0", "--slots", "1") as process:
        wait_until_it_listens(process)
        path = endpoint.socket_path(state)
        with wiring.connect(state_dir=state) as before:
            path.unlink()
            eventually("a new socket", path.exists)
            with wiring.connect(state_dir=state, connect_seconds=_SECONDS) as after:
                assert after.submit(abs, -3).result(_SECONDS) == 3
            assert before.submit(abs, -4).result(_SECONDS) == 4
        process.terminate()
        _, said = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0
    assert "is made again" in said
    assert "Traceback" not in said
    assert not path.exists()


@pytest.mark.parametrize("blow", ["removed", "garbled", "another's"])
def test_the_file_that_says_where_it_listens_is_made_again(
    tmp_path: Path, eventually: Eventually, blow: str
) -> None:
    state = tmp_path / "state"
    with start("up", state, "--port", "0", "--slots", "1") as process:
        wait_until_it_listens(process)
        told = endpoint.read(state)
        if blow == "removed":
            (state / "endpoint.json").unlink()
        elif blow == "garbled":
            (state / "endpoint.json").write_bytes(b"\xff{")
        else:
            endpoint.publish(state, endpoint.Endpoint("unix:/nowhere", 1, "0", "0"))
        eventually("it says so again", lambda: endpoint.read(state) == told)
        with wiring.connect(state_dir=state) as client:
            assert client.submit(abs, -3).result(_SECONDS) == 3
        process.terminate()
        _, said = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0
    assert "is made again" in said
    assert "Traceback" not in said
    assert endpoint.read(state) is None


@pytest.mark.parametrize("what", ["database", "directory"])
def test_it_acknowledges_nothing_into_what_was_removed(tmp_path: Path, what: str) -> None:
    state = tmp_path / "state"
    with start("coordinator", state, "--port", "0") as process:
        wait_until_it_listens(process)
        for path in state.glob("store.db*"):
            path.unlink()
        if what == "directory":
            shutil.rmtree(state)
        _, said = process.communicate(timeout=_SECONDS)
        assert process.returncode not in (0, None)
    assert f"the {'database' if what == 'database' else 'state directory'} {state}" in said
    assert "Traceback" not in said


def test_what_only_a_removed_log_held_is_known_to_the_next_one(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with start("coordinator", state, "--port", "0") as process:
        wait_until_it_listens(process)
        with wiring.connect(f"unix:{endpoint.socket_path(state)}") as client:
            ids = {client.submit(abs, n).id for n in range(50)}
        (state / "store.db-wal").unlink()
        _, said = process.communicate(timeout=_SECONDS)
        assert process.returncode == 4
    assert f"holdfast: the write-ahead log {state}" in said
    assert "was removed" in said
    assert "Traceback" not in said
    with start("coordinator", state, "--port", "0") as process:
        wait_until_it_listens(process)
        with wiring.connect(f"unix:{endpoint.socket_path(state)}") as client:
            assert {task["id"] for task in client.list(limit=100)} == ids
        process.terminate()
        process.communicate(timeout=_SECONDS)


def spoil(database: Path, sign: bytes) -> None:
    """Make noise of every page of a database at rest that holds a sign."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    data = bytearray(database.read_bytes())
    for at in range(size, len(data), size):
        if sign in data[at : at + size]:
            data[at : at + size] = b"\xa5" * size
    database.write_bytes(data)


def test_a_damaged_database_ends_it_with_what_to_do(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with start("coordinator", state, "--port", "0") as process:
        wait_until_it_listens(process)
        with wiring.connect(f"unix:{endpoint.socket_path(state)}") as client:
            for number in range(100):
                client.submit(print, "sign" * 750, number).wait_accepted(_SECONDS)
        process.terminate()
        process.communicate(timeout=_SECONDS)
    spoil(state / "store.db", b"signsign")
    with start("up", state, "--port", "0", "--slots", "1") as process:
        # Its own worker asks for what cannot be read.
        _, said = process.communicate(timeout=_SECONDS)
    assert process.returncode == 5
    (line,) = [line for line in said.splitlines() if line.startswith("holdfast: ")]
    assert f"the database {state}/store.db is damaged" in line
    assert ".recover" in line
    assert "Traceback" not in said
    # Neither is it taken up again, be the damage met at once or not.
    with pytest.raises(NoCoordinatorError, match=r"(?s)found earlier.*store\.db\.damaged"):
        wiring.connect(state_dir=state)


def test_it_runs_without_what_only_others_need(tmp_path: Path) -> None:
    """A web framework, and what draws on terminals, cost time and memory at every start."""
    source = """
import os, signal, sys
from pathlib import Path
from holdfast.config import CoordinatorSettings
from holdfast.wiring import coordinate, run

def announce(urls):
    print(*sorted({name.partition(".")[0] for name in sys.modules}))
    os.kill(os.getpid(), signal.SIGTERM)

run(coordinate(CoordinatorSettings(state_dir=Path(sys.argv[1]), embedded=True), announce))
"""
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path / "state")],
        check=True,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    loaded = set(done.stdout.split())
    assert {"holdfast", "uvicorn", "msgspec", "sqlite3"} <= loaded
    assert not loaded & {"fastapi", "pydantic", "starlette", "rich", "cloudpickle"}


def test_a_stale_socket_is_replaced_and_a_living_coordinator_is_not(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(endpoint.socket_path(state)))
    with start("coordinator", state, "--port", "0") as process:
        wait_until_it_listens(process)
        second = subprocess.run(
            [sys.executable, "-m", "holdfast", "up", "--state-dir", str(state), "--port", "0"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        assert second.returncode == 2
        assert "already runs" in second.stderr
        with wiring.connect(f"unix:{endpoint.socket_path(state)}") as client:
            assert client.list() == []
        process.terminate()
        process.communicate(timeout=_SECONDS)


@pytest.mark.parametrize("what", ["port in use", "no database", "newer schema"])
def test_what_it_cannot_begin_with_is_one_line(
    tmp_path: Path, what: str, eventually: Eventually
) -> None:
    state = tmp_path / "state"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = 0
        if what == "port in use":
            port, word = (
                taken.getsockname()[1],
                f"cannot listen on 127.0.0.1:{taken.getsockname()[1]}",
            )
        elif what == "no database":
            state.mkdir()
            (state / "store.db").write_text("by no means a database\n" * 100)
            word = "not a database"
        else:
            make_newer(state)
            word = "run the newer release again"
        with start("up", state, "--port", str(port)) as process:
            _, said = process.communicate(timeout=_SECONDS)
    assert process.returncode in (2, 5)
    (line,) = [line for line in said.splitlines() if line.startswith("holdfast: ")]
    assert word in line
    assert "Traceback" not in said
    home = state / "worker-0"
    eventually("no worker is left", lambda: not endpoint_lock_held(home / "lock"))


def make_newer(state: Path) -> None:
    import sqlite3

    with start("coordinator", state, "--port", "0") as process:
        wait_until_it_listens(process)
        process.terminate()
        process.communicate(timeout=_SECONDS)
    connection = sqlite3.connect(state / "store.db")
    with connection:
        connection.execute("UPDATE meta SET schema = schema + 90")
    connection.close()


def endpoint_lock_held(lock: Path) -> bool:
    import fcntl

    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_deleted_directory_to_run_in_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.errors import ConfigurationError
    from holdfast.wiring.coordinator import _hands

    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    with pytest.raises(ConfigurationError, match="was deleted"):
        _hands(CoordinatorSettings(state_dir=tmp_path), "unix:/x", umask=-1)
