"""Each example runs as a reader would run it, in a folder of its own, and prints what is true."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_SECONDS = 50

PRINTS = {
    "asyncio_executor": r"\[1, 1, 2, 6, 24\]\n[0-9a-f-]{36} 10\n",
    "dask_delayed": r"7 words\n",
    "joblib_loop": r"190\n",
    "rich_progress": r"(?s).*100%.*46 primes\n",
    "sklearn_cross_validation": r"4 folds, 9\d% right\n",
    "tqdm_progress": r"longest: 124\n",
}
"""Program -> a pattern of all that it prints."""
SERVED = {"fastapi_service"}


def programs() -> list[Path]:
    return sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("program", PRINTS)
def test_an_example_prints_what_it_computes(program: str, folder: Path) -> None:
    shutil.copy(EXAMPLES / f"{program}.py", folder)
    done = subprocess.run(
        [sys.executable, f"{program}.py"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(PRINTS[program], done.stdout), done.stdout + done.stderr
    if program == "tqdm_progress":
        assert "200/200" in done.stderr


@contextmanager
def served(module: str, folder: Path) -> Iterator[str]:
    """Serve an application on a free port, which uvicorn tells; end it by its pid."""
    words = [sys.executable, "-m", "uvicorn", f"{module}:app", "--port", "0"]
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = ""
        for line in server.stderr:
            said += line
            found = re.search(r"running on (http://[\d.]+:\d+)", line)
            if found:
                break
        else:
            pytest.fail(f"uvicorn does not come up: {said}")
        try:
            yield found[1]
        finally:
            os.kill(server.pid, signal.SIGTERM)
            # It is read to its end, so that it is not held up by a full pipe.
            said += server.communicate(timeout=_SECONDS)[1]
    assert "Application shutdown complete" in said, said
    assert "Traceback" not in said, said


def test_a_web_service_submits_and_waits(folder: Path) -> None:
    shutil.copy(EXAMPLES / "fastapi_service.py", folder)
    with served("fastapi_service", folder) as url:
        reply = httpx.post(f"{url}/factorials", params={"number": 20}, timeout=_SECONDS)
        assert reply.status_code == 202
        task = reply.json()["id"]
        reply = httpx.get(f"{url}/factorials/{task}", params={"wait": 40}, timeout=_SECONDS)
        assert reply.json() == {"result": 2_432_902_008_176_640_000}
        unknown = [task[:-1] + ("0" if task[-1] != "0" else "1"), "what"]
        for each in unknown:
            assert httpx.get(f"{url}/factorials/{each}", timeout=_SECONDS).status_code == 404
    with served("fastapi_service", folder) as url:
        reply = httpx.get(f"{url}/factorials/{task}", timeout=_SECONDS)
        assert reply.json() == {"result": 2_432_902_008_176_640_000}


def test_every_example_is_run_here() -> None:
    assert {program.stem for program in programs()} == set(PRINTS) | SERVED


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.stem)
def test_an_example_is_short_and_says_how_to_run_it(program: Path) -> None:
    text = program.read_text(encoding="utf-8")
    told = ast.get_docstring(ast.parse(text))
    assert told is not None
    assert re.search(rf"Run `(python|uvicorn) {program.stem}\b", told)
    assert 10 <= len(text.splitlines()) <= 50
