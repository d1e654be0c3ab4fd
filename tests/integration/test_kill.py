"""The kill test in its short form, and the proof that it would see a missing token check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import holdfast

PRODUCT = Path(holdfast.__file__).parent
SEED = "11"
_SECONDS = 55

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


def start(*words: str, product: Path | None = None) -> subprocess.Popen[str]:
    """Start the kill test, with another copy of the product where one is given."""
    environment = dict(os.environ)
    if product is not None:
        environment["PYTHONPATH"] = str(product)
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast.lab.killtest", "--json", "--seed", SEED, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
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
        "late": start("--form", "late"),
        "altered": start("--form", "late", product=altered),
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
    assert found["pairs"] >= 1


def test_outcomes_that_come_late_are_refused(held: Held) -> None:
    code, found, talk = held["late"]
    assert code == 0, f"{found}\n{talk}"
    assert found["superseded_ends"] > 0


def test_a_product_without_the_token_check_fails_the_same_test(held: Held) -> None:
    code, found, talk = held["altered"]
    assert code == 1, f"{found}\n{talk}"
    assert any("the result" in text for text in found["wrong"])
