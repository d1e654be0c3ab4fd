"""Where a coordinator is found: the URL a person gives, taken apart once.

A pure value; nothing here opens a socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from holdfast.errors import ConfigurationError

PORT = 7700
SESSION_PATH = "/v1/session"
BLOBS_PATH = "/v1/blobs"

_TLS_BY_SCHEME = {"http": False, "ws": False, "https": True, "wss": True}
_FORMS = "http://host:port, https://host:port, ws://…, wss://… or unix:/path/to.sock"


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP endpoint, or a Unix socket where `unix_path` is not empty."""

    host: str
    port: int
    tls: bool = False
    unix_path: str = ""

    @property
    def authority(self) -> str:
        """The `host:port` of URLs and Host headers; IPv6 hosts stand in brackets."""
        if self.unix_path:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def session_url(self) -> str:
        """The WebSocket URL of sessions."""
        return f"{'wss' if self.tls else 'ws'}://{self.authority}{SESSION_PATH}"

    @property
    def text(self) -> str:
        """The URL as people read it."""
        if self.unix_path:
            return f"unix:{self.unix_path}"
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def parse_address(url: str) -> Address:
    """Read a coordinator's URL; the port is 7700 where none is given, with TLS 443.

    Raises ConfigurationError naming what is wrong with it.
    """
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ConfigurationError(f"url={url!r}: unix: needs an absolute path")
        return Address("", 0, unix_path=path)
    try:
        parts = urlsplit(url)
        tls = _TLS_BY_SCHEME.get(parts.scheme)
        host, port = parts.hostname, parts.port
        # As the resolver will, whose complaint comes in the midst of dialling.
        (host or "").encode("idna")
    except ValueError as error:
        raise ConfigurationError(f"url={url!r}: {error}; give {_FORMS}") from None
    if tls is None or not host:
        raise ConfigurationError(f"url={url!r} is not a coordinator's address; give {_FORMS}")
    if parts.path not in ("", "/", SESSION_PATH) or parts.query or parts.fragment:
        raise ConfigurationError(f"url={url!r} has more than a host and a port; give {_FORMS}")
    if parts.username is not None:
        raise ConfigurationError(f"url={parts.scheme}://…@{host}: no user or password belongs here")
    return Address(host, port or (443 if tls else PORT), tls)
