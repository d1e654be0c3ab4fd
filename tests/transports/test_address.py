"""The URLs that people give."""

from __future__ import annotations

import pytest

from holdfast.errors import ConfigurationError
from holdfast.transports.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address", "session_url"),
    [
        ("http://a:1", Address("a", 1), "ws://a:1/v1/session"),
        ("http://a", Address("a", 7700), "ws://a:7700/v1/session"),
        ("ws://a:1/v1/session", Address("a", 1), "ws://a:1/v1/session"),
        ("https://a/", Address("a", 443, tls=True), "wss://a:443/v1/session"),
        ("wss://a:5", Address("a", 5, tls=True), "wss://a:5/v1/session"),
        ("http://[::1]:9", Address("::1", 9), "ws://[::1]:9/v1/session"),
        ("unix:/x/y", Address("", 0, unix_path="/x/y"), "ws://localhost/v1/session"),
        ("unix:///x/y", Address("", 0, unix_path="/x/y"), "ws://localhost/v1/session"),
    ],
)
def test_forms(url: str, address: Address, session_url: str) -> None:
    assert parse_address(url) == address
    assert address.session_url == session_url
    assert parse_address(address.text) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:1",
        "ftp://a",
        "http://",
        "http://a:x",
        "http://a:1/other",
        "unix:x",
        "http://u:p@a",
        "http://a\udcff:1",
        "http://a..b:1",
        f"http://{'a' * 64}:1",
    ],
)
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="url="):
        parse_address(url)
