"""A short look at a coordinator that runs: for who must not wait, nor start one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import config
from holdfast.errors import ConfigurationError
from holdfast.observe import logger

if TYPE_CHECKING:
    from holdfast.transports.address import Address

Question = tuple[str, dict[str, Any]]
_LOG = logger("wiring")


def glance(
    url: str | None,
    state_dir: str | Path | None,
    questions: Sequence[Question],
    *,
    seconds: float,
) -> list[Any] | None:
    """Return the answers to a few questions, None where they do not come within `seconds`.

    Finds the coordinator as `connect` does, but starts none, and never raises for what is wrong
    with it. What is late goes on in a thread that holds up nothing, not even the end of Python.
    """
    try:
        address = _address(url, state_dir)
    except (ConfigurationError, OSError, ValueError) as error:
        _LOG.debug("no coordinator is named: %s", error)
        return None
    if address is None:
        return None
    # What is imported here is on no coordinator's time.
    import asyncio

    from holdfast import __version__
    from holdfast.client.glance import glance as ask
    from holdfast.transports.websocket import WebSocketDialer

    answers: list[list[Any]] = []

    def look() -> None:
        try:
            if not address.unix_path:
                # asyncio asks on a thread for which Python waits at its end; now it is quick.
                socket.getaddrinfo(address.host, address.port)
            dialer = WebSocketDialer(address)
            answers.append(asyncio.run(ask(dialer, questions, version=__version__)))
        except Exception as error:
            _LOG.debug("%s: %s", address.text, error)

    thread = threading.Thread(target=look, name="holdfast-glance", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def _address(url: str | None, state_dir: str | Path | None) -> Address | None:
    """Return where the coordinator is, None where none lives in the state directory."""
    from holdfast.transports import endpoint
    from holdfast.transports.address import parse_address

    place = config.place(url, state_dir)
    if place.url:
        return parse_address(place.url)
    told = endpoint.read(place.state_dir)
    if told is None or not endpoint.lives(place.state_dir):
        return None
    return parse_address(told.url)
