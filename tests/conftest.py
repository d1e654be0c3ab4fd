"""What all tests share: a clean environment, waiting for a condition, settings of hypothesis."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import hypothesis
import pytest

POLL_SECONDS = 0.01

# A shared machine makes single examples slow now and then; that is no failure of the code.
hypothesis.settings.register_profile("holdfast", deadline=None, print_blob=True)
hypothesis.settings.load_profile("holdfast")


class Eventually(Protocol):
    """The type of the fixture `eventually`."""

    def __call__(
        self, what: str, condition: Callable[[], object], *, within_seconds: float = 10.0
    ) -> None: ...


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds, and fail with what was waited for when it does not.

    For what only another process can show; where there is a signal, a test waits for that.
    """

    def wait(what: str, condition: Callable[[], object], *, within_seconds: float = 10.0) -> None:
        deadline = time.monotonic() + within_seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {within_seconds} s in vain until {what}")
            time.sleep(POLL_SECONDS)

    return wait


@pytest.fixture
def terminal() -> Iterator[None]:
    """Have the end of a terminal be heard, also where the tests themselves are not to hear it."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(name)
