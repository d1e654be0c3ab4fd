"""How an attempt ended, what it left, and the answers a worker gets."""

from __future__ import annotations

import msgspec

from holdfast.model.words import Word


class OutcomeKind(Word):
    """The outcomes of ADR 2, in its order."""

    SUCCEEDED = 1
    RAISED = 2
    TIMED_OUT = 3
    CRASHED = 4
    OUT_OF_MEMORY = 5
    ENVIRONMENT = 6
    RETURNED = 7
    STOPPED = 8
    CHECKPOINTED = 9
    INVALID = 10


class Reason(Word):
    """Why a task is `failed` (always one of these), or `cancelled` where it was not the user."""

    NONE = 0
    ERROR = 1
    TIMEOUT = 2
    CRASHED = 3
    OUT_OF_MEMORY = 4
    ENVIRONMENT = 5
    LOST = 6
    INVALID = 7
    EXPIRED = 8


class Answer(Word):
    """What a coordinator answers to one write of a worker."""

    KEEP = 1
    STOP = 2
    SETTLED = 3
    SUPERSEDED = 4
    UNKNOWN = 5
    COMMITTED = 6


class Encoding(Word):
    """How the bytes of a payload are to be read."""

    JSON = 1
    PICKLE = 2
    SERVICE = 3
    """A pickle, as the function service is given it; the result has to be one as well."""


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Arguments or a result: inline bytes, or the SHA-256 of a blob that is already durable."""

    encoding: Encoding
    data: bytes = b""
    digest: bytes = b""
    size_bytes: int = 0


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An exception as data: never unpickled in the coordinator.

    `types` are the qualified names of the exception's MRO, most derived first; `pickled` is the
    exception itself for a client that trusts the submitter; `evidence` is what is known of a
    death (signal, exit code, last lines of stderr).
    """

    types: tuple[str, ...] = ()
    message: str = ""
    traceback: str = ""
    pickled: bytes = b""
    evidence: str = ""
