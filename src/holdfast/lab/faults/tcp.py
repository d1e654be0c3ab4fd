"""Faults of a stream between two parties, as values, and what those that are on add up to.

Owns the words for what can happen to a connection and their arithmetic. Never touches a socket, a
clock or a die: `stream` does, with what is said here.

How faults of one kind add up: latencies and delays of the end are summed, of two bandwidths and
of two slicings the smaller holds, corruptions strike independently, dropping wins over holding.

What becomes of the bytes while a direction is silent is the `fate` of the fault:

`dropped`
    They are read and thrown away, as if a box in between had forgotten the connection. A TCP
    stream with a hole cannot be continued, so after the repair, when no direction is silent any
    more, every connection that lost something (bytes, an end or a reset) is reset towards both
    parties. A connection that lost nothing goes on.
`held`
    They are kept and the sender is slowed, as in a short outage that retransmission outlives.
    After the repair they are delivered and nobody is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from holdfast.errors import InvalidInputError

Direction: TypeAlias = Literal["to_server", "to_client"]
Span: TypeAlias = Literal["to_server", "to_client", "both"]
Fate: TypeAlias = Literal["dropped", "held"]

DIRECTIONS: tuple[Direction, Direction] = ("to_server", "to_client")


def _demand(fulfilled: bool, demand: str) -> None:
    if not fulfilled:
        raise InvalidInputError(demand)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Every byte arrives `delay_seconds` later, plus or minus up to `jitter_seconds`.

    Order is kept, as TCP keeps it. Chance is drawn from `seed`, the number of the connection and
    the direction.
    """

    delay_seconds: float
    jitter_seconds: float = 0.0
    seed: int = 0
    direction: Span = "both"

    def __post_init__(self) -> None:
        _demand(self.delay_seconds >= 0, "delay_seconds must not be negative")
        _demand(self.jitter_seconds >= 0, "jitter_seconds must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """Each connection carries at most `bytes_per_second` in a direction; its sender is slowed."""

    bytes_per_second: float
    direction: Span = "both"

    def __post_init__(self) -> None:
        _demand(self.bytes_per_second > 0, "bytes_per_second must be above 0; HalfOpen is silence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slicing:
    """Bytes arrive in pieces of at most `slice_bytes`, with `gap_seconds` between them."""

    slice_bytes: int
    gap_seconds: float = 0.001
    direction: Span = "both"

    def __post_init__(self) -> None:
        _demand(self.slice_bytes >= 1, "slice_bytes must be at least 1")
        _demand(self.gap_seconds >= 0, "gap_seconds must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowClose:
    """The end of a stream (FIN) arrives `delay_seconds` after the last byte."""

    delay_seconds: float
    direction: Span = "both"

    def __post_init__(self) -> None:
        _demand(self.delay_seconds >= 0, "delay_seconds must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """One bit of a forwarded piece is flipped, with `probability` for each piece.

    Chance is drawn from `seed`, the number of the connection and the direction.
    """

    probability: float
    seed: int = 0
    direction: Span = "both"

    def __post_init__(self) -> None:
        _demand(0 <= self.probability <= 1, "probability must lie between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfOpen:
    """Both directions are silent, and no socket is told.

    New connections are accepted and as silent; the server does not see them before the repair.
    """

    fate: Fate = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneWay:
    """One direction is silent, the other passes. New connections do reach the server."""

    direction: Direction
    fate: Fate = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Every open connection is reset (RST) at once, and new ones are refused until the repair.

    With `refuse=False` it is one blow: new connections are welcome at once. A unix socket knows no
    reset: there the connection is closed, and the peer finds `ECONNRESET` only when bytes that it
    had sent were unread.
    """

    refuse: bool = True


Fault: TypeAlias = (
    Latency | Bandwidth | Slicing | SlowClose | Corruption | HalfOpen | OneWay | Reset
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the faults that are on mean for one direction.

    Faults that need chance keep the number under which they were applied, so that each
    application has dice of its own.
    """

    latencies: tuple[tuple[int, Latency], ...] = ()
    corruptions: tuple[tuple[int, Corruption], ...] = ()
    bytes_per_second: float | None = None
    slice_bytes: int | None = None
    gap_seconds: float = 0.0
    end_delay_seconds: float = 0.0
    silence: Fate | None = None


def conditions(direction: Direction, applied: Mapping[int, Fault]) -> Conditions:
    """Add up the faults that are on, for one direction."""
    latencies: list[tuple[int, Latency]] = []
    corruptions: list[tuple[int, Corruption]] = []
    rates: list[float] = []
    slicings: list[Slicing] = []
    end_delay_seconds = 0.0
    fates: set[Fate] = set()
    for number, fault in applied.items():
        match fault:
            case HalfOpen():
                fates.add(fault.fate)
            case Reset():
                pass
            case _ if fault.direction not in (direction, "both"):
                pass
            case OneWay():
                fates.add(fault.fate)
            case Latency():
                latencies.append((number, fault))
            case Corruption():
                corruptions.append((number, fault))
            case Bandwidth():
                rates.append(fault.bytes_per_second)
            case Slicing():
                slicings.append(fault)
            case SlowClose():
                end_delay_seconds += fault.delay_seconds
    return Conditions(
        latencies=tuple(latencies),
        corruptions=tuple(corruptions),
        bytes_per_second=min(rates, default=None),
        slice_bytes=min((slicing.slice_bytes for slicing in slicings), default=None),
        gap_seconds=max((slicing.gap_seconds for slicing in slicings), default=0.0),
        end_delay_seconds=end_delay_seconds,
        silence="dropped" if "dropped" in fates else "held" if fates else None,
    )


def refuses(applied: Mapping[int, Fault]) -> bool:
    """Return whether new connections are refused."""
    return any(isinstance(fault, Reset) and fault.refuse for fault in applied.values())
