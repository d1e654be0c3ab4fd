"""Why a coordinator cannot listen, in words."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from holdfast.config import CoordinatorSettings
from holdfast.errors import ConfigurationError
from holdfast.wiring.doors import Doors


@pytest.mark.parametrize("host", ["127.0.0.999", "127.0.0." + "9" * 70])
def test_a_host_that_there_is_not(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Doors(CoordinatorSettings(state_dir=tmp_path, host=host, port=0))
    text = str(raised.value)
    assert text.startswith(f"the host {host} cannot be found: ")
    assert text.endswith("; give another with --host")
    assert "rror -" not in text
    assert list(tmp_path.iterdir()) == [], "no socket is left"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}: Address"):
            Doors(CoordinatorSettings(state_dir=tmp_path, port=port))


def test_both_doors_are_named(tmp_path: Path) -> None:
    with Doors(CoordinatorSettings(state_dir=tmp_path, host="localhost", port=0)) as doors:
        unix, tcp = doors.urls
        assert unix.startswith("unix:")
        assert tcp == f"http://localhost:{doors.sockets[1].getsockname()[1]}"
