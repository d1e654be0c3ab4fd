"""The embedded coordinator: it outlives its clients, and its clients outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from holdfast import wiring
from holdfast.lab.cluster import is_zombie_or_gone
from holdfast.transports import endpoint
from tests.conftest import Eventually

_SECONDS = 30


def script(folder: Path, source: str) -> list[str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(source))
    return [sys.executable, str(path)]


def run(words: list[str], folder: Path, given: str = "") -> str:
    done = subprocess.run(
        words,
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def coordinator_pid(folder: Path) -> int:
    told = endpoint.read(folder / ".holdfast")
    assert told is not None
    assert endpoint.lives(folder / ".holdfast")
    return told.pid


PLAIN = """
import holdfast

def double(n):
    return 2 * n

with holdfast.connect() as hf:
    print(sum(hf.map(double, range(100))))
"""


def test_a_script_without_a_main_guard_and_a_second_one(folder: Path) -> None:
    words = script(folder, PLAIN)
    assert run(words, folder) == "9900\n"
    # Without a client it would end after a few seconds, which a script may take to start.
    with wiring.connect(state_dir=folder / ".holdfast"):
        attach_others(words, folder, coordinator_pid(folder))


def attach_others(words: list[str], folder: Path, pid: int) -> None:
    assert run(words, folder) == "9900\n"
    assert coordinator_pid(folder) == pid, "the second process attaches to the first one's"
    assert run([sys.executable, "-c", PLAIN], folder) == "9900\n"
    repl = (
        "import holdfast\n"
        "def triple(n):\n    return 3 * n\n\n"
        "hf = holdfast.connect()\n"
        "print('answer', hf.submit(triple, 14).result(20))\n"
        "hf.close()\n"
    )
    assert "answer 42" in run([sys.executable, "-i"], folder, repl)
    assert coordinator_pid(folder) == pid


CLOSED = """
import holdfast

with holdfast.connect() as hf:
    assert hf.submit(pow, 2, 3).result(20) == 8
with open("after", "w") as file:
    file.write(f"descriptor {file.fileno()}")
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_script_whose_standard_streams_are_closed(closed: str, folder: Path) -> None:
    words = script(folder, CLOSED)
    run(["sh", "-c", f'exec "$0" "$@" {closed}', *words], folder)
    # A file of the script is no standard stream of what it starts.
    assert int((folder / "after").read_text().removeprefix("descriptor ")) > 2
    assert "ready" not in (folder / ".holdfast" / "coordinator.log").read_text().splitlines()


LAST_WORDS = """
import holdfast
hf = holdfast.connect()
futures = [hf.submit(len, b"x" * size) for size in (10, 3_000_000, 10, 3_000_000)]
print(" ".join(future.id for future in futures))
"""


def test_what_a_script_submits_last_is_kept_however_large(folder: Path) -> None:
    words = script(folder, LAST_WORDS)
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=True
    )
    assert done.stderr == ""
    with wiring.connect(state_dir=folder / ".holdfast") as client:
        sizes = [client.future(task).result(_SECONDS) for task in done.stdout.split()]
    assert sizes == [10, 3_000_000, 10, 3_000_000]


WAITING = """
import sys, time
from pathlib import Path
import holdfast

def hold(until):
    Path(until + ".begun").touch()
    while not Path(until).exists():
        time.sleep(0.02)
    with open(until, "a") as file:
        file.write("ran ")
    return "done"

with holdfast.connect() as hf:
    future = hf.submit(hold, sys.argv[1])
    future.wait_accepted(20)
    print(future.id, flush=True)
    print(future.result(), flush=True)
"""


def test_ctrl_c_in_a_client_leaves_the_coordinator_and_the_tasks_alone(
    folder: Path, eventually: Eventually
) -> None:
    release = folder / "release"
    words = [*script(folder, WAITING), str(release)]
    # A terminal sends Ctrl-C to a whole group; this one is the client's.
    with subprocess.Popen(
        words,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as client:
        assert client.stdout is not None
        task = client.stdout.readline().strip()
        eventually("the task runs", Path(f"{release}.begun").exists, within_seconds=20)
        pid = coordinator_pid(folder)
        os.killpg(client.pid, signal.SIGINT)
        _, error = client.communicate(timeout=_SECONDS)
    assert "KeyboardInterrupt" in error
    assert coordinator_pid(folder) == pid
    assert not is_zombie_or_gone(pid)
    release.touch()
    with wiring.connect(state_dir=folder / ".holdfast") as other:
        assert other.future(task).result(20) == "done"
    assert release.read_text() == "ran "


def test_a_directory_whose_name_is_not_utf8(folder: Path) -> None:
    here = folder / os.fsdecode(b"bad\xff")
    (here / ".holdfast").mkdir(parents=True)
    # Where the fixture looks for what it has to end.
    (folder / ".holdfast").symlink_to(here / ".holdfast")
    (here / "found_here.py").write_text("import os\nwhere = os.getcwdb\n")
    words = [sys.executable, "-m", "holdfast"]
    assert run([*words, "submit", "found_here:where", "--wait"], here) == f"{os.fsencode(here)!r}\n"
    assert "found_here:where" in run([*words, "ls"], here)
    assert "connected" in run([*words, "workers"], here)


def test_a_client_that_waits_revives_its_coordinator(folder: Path, eventually: Eventually) -> None:
    release = folder / "release"
    words = [*script(folder, WAITING), str(release)]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()
        eventually("the task runs", Path(f"{release}.begun").exists, within_seconds=20)
        pid = coordinator_pid(folder)
        os.kill(pid, signal.SIGKILL)
        eventually(
            "there is another coordinator",
            lambda: endpoint.lives(folder / ".holdfast") and coordinator_pid(folder) != pid,
            within_seconds=20,
        )
        release.touch()
        told, _ = client.communicate(timeout=_SECONDS)
    assert told == "done\n"
    assert release.read_text() == "ran ", "its worker went on with it"


FORGETFUL = """
import sys
import holdfast

def forget():
    import holdfast
    holdfast.kept_open = holdfast.connect()
    return holdfast.kept_open.submit(pow, 2, 3).id

def forget_more():
    import threading
    thread = threading.Thread(target=forget)
    thread.start()
    thread.join()

with holdfast.connect() as hf:
    hf.submit(forget).result(20)
    hf.submit(forget_more).result(20)
"""


def test_a_client_that_a_task_forgets_keeps_nothing_alive(
    folder: Path, eventually: Eventually
) -> None:
    run(script(folder, FORGETFUL), folder)
    state_dir = folder / ".holdfast"
    eventually("it ends", lambda: not endpoint.lives(state_dir), within_seconds=20)
    assert (state_dir / "coordinator.log").read_text().count("listening on") == 1
