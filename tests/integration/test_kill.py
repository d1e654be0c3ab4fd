"""The kill test in short, proof that it would see a missing token check, and the demonstration."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.lab.cluster import Cluster, descendants, is_zombie_or_gone
from tests.conftest import Eventually

PRODUCT = Path(holdfast.__file__).parent
SEED = "11"
_SECONDS = 150
"""Two of them at once, on a machine that has other work too."""
pytestmark = pytest.mark.timeout(_SECONDS + 30)

CHECKS = {
    "core/lease.py": (
        "    if token != life.token:\n        return Standing.OLDER\n",
        "",
    ),
    "stores/statements.py": (
        "(tasks.token = v.column3 AND tasks.lease IN (1, 2))",
        "tasks.lease IN (1, 2)",
    ),
}
"""Where a token is checked: in the decision, and in the statement that writes it."""


def start(
    *words: str, product: Path | None = None, place: Path | None = None
) -> subprocess.Popen[str]:
    """Start the kill test, with another copy of the product or another TMPDIR where given."""
    environment = dict(os.environ)
    if product is not None:
        environment["PYTHONPATH"] = str(product)
    if place is not None:
        environment["TMPDIR"] = str(place)
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast.lab.killtest", "--json", "--seed", SEED, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # As from a terminal, whatever runs this test.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Return exit code, findings and talk of a kill test; end it where it does not end."""
    try:
        told, talk = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        _, talk = process.communicate()
        pytest.fail(f"the kill test did not end:\n{talk}")
    return process.returncode, json.loads(told or "{}"), talk


def without_token_check(folder: Path) -> Path:
    """Return the root of a copy of the product that takes any token for the newest."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PRODUCT, folder / "holdfast", ignore=ignored)
    for name, (check, nothing) in CHECKS.items():
        path = folder / "holdfast" / name
        text = path.read_text()
        assert text.count(check) == 1, f"{name} does not check the token there any more"
        path.write_text(text.replace(check, nothing))
    return folder


Held = dict[str, tuple[int, dict[str, Any], str]]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    """Hold all of them at once: they wait more than they work."""
    altered = without_token_check(tmp_path_factory.mktemp("altered"))
    started = {
        "short": start("--form", "short"),
        "altered": start("--form", "short", product=altered),
    }
    return {name: ended(process) for name, process in started.items()}


def test_nothing_is_lost_under_kills(held: Held) -> None:
    code, found, talk = held["short"]
    assert code == 0, f"{found}\n{talk}"
    assert found["verdict"] == "valid"
    assert found["tasks"] >= 3_000
    struck = found["blows"]
    assert struck["child"] >= 4
    assert struck["worker"] >= 2
    assert struck["coordinator"] >= 2
    assert struck["cut"] >= 1
    assert found["pairs"] >= 1
    assert found["superseded_ends"] > 0


def test_a_product_without_the_token_check_fails_the_same_test(held: Held) -> None:
    code, found, talk = held["altered"]
    assert code == 1, f"{found}\n{talk}"
    assert any("the result" in text for text in found["wrong"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_kill_test_ends_at_once_and_leaves_nothing_behind(
    number: int, place: Path, eventually: Eventually
) -> None:
    process = start("--form", "short", place=place)
    eventually("tasks run", lambda: list(place.glob("*/witness")), within_seconds=30)
    assert len(left_in(place)) > 5
    process.send_signal(number)
    # One that is not interrupted goes on to a verdict, with another exit code.
    told, talk = process.communicate(timeout=30)
    assert process.returncode == 130, talk
    assert told == ""
    assert talk.endswith("everything that was started has ended\n")
    assert "Traceback" not in talk
    assert left_in(place) == []
    assert list(place.iterdir()) == []


# --- The demonstration ---------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    """The TMPDIR of a run, by which all is known that it starts; sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as folder:
        yield Path(folder)


@pytest.fixture
def demo(tmp_path: Path, place: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `holdfast demo` on one file."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "one.txt").write_text("one file is indexed in no time\n")
    # Where the command is run, a file of the user's hides no module of ours.
    (tmp_path / "click.py").write_text("raise RuntimeError('the wrong click')\n")
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "holdfast", "demo", "--input", tree, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(place)},
            # As from a terminal, whatever runs this test.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate()


def left_in(place: Path) -> list[int]:
    """Return the processes that were started with this TMPDIR."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and not is_zombie_or_gone(int(entry.name)):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # It has just ended.
            if b"TMPDIR=%s" % os.fsencode(place) in environment:
                found.append(int(entry.name))
    return found


def test_one_small_file_and_one_worker_are_enough_for_every_kind_of_kill(
    demo: Callable[..., subprocess.Popen[str]], place: Path
) -> None:
    process = demo("--workers", "1", "--slots", "1", "--kills", "1", "--json")
    told, talk = process.communicate(timeout=_SECONDS)
    assert process.returncode == 0, talk
    found = json.loads(told)
    assert found["kills"] == {"child": 1, "worker": 1, "coordinator": 1}
    assert found["interrupted"] >= 1
    assert found["began_twice_not_interrupted"] == 0
    assert (found["files"], found["lost"], found["differing"]) == (1, [], [])
    assert left_in(place) == []
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(
    number: int,
    demo: Callable[..., subprocess.Popen[str]],
    place: Path,
    eventually: Eventually,
) -> None:
    process = demo("--kills", "100")
    eventually("a task runs", lambda: list(place.glob("*/witness")), within_seconds=30)
    assert len(left_in(place)) > 5
    process.send_signal(number)
    told, talk = process.communicate(timeout=30)
    assert process.returncode == 130, talk
    assert told == ""
    assert "everything that was started has ended" in talk
    assert left_in(place) == []
    assert list(place.iterdir()) == []


def test_a_cluster_that_is_stopped_leaves_no_guard_behind(
    tmp_path: Path, eventually: Eventually
) -> None:
    """The guard of a worker that was killed wants to tell a coordinator that is gone."""
    with Cluster(tmp_path) as cluster:
        cluster.start_coordinator()
        cluster.start_worker("one", "--slots", "1")
        supervisor = cluster.worker_pid("one")
        eventually("it has a guard and a child", lambda: len(descendants(supervisor)) >= 3)
        below = descendants(supervisor)
        cluster.kill_coordinator()
        cluster.kill_worker("one")
    assert all(map(is_zombie_or_gone, below))
