"""Payloads: how arguments, results, functions and exceptions become bytes, and come back.

Both ends use this room, the client and what runs in a child; the coordinator never does. It owns
the choice between JSON and pickle, the search for the part that does not serialise, the likeness
of what is pickled, and exceptions as data. It never talks to a socket, and writes no file but the
one a large payload is spilled to, in the folder it was given.
"""

from __future__ import annotations

from holdfast.payloads.failures import RemoteTraceback, exception_of, failure_of
from holdfast.payloads.functions import decode_function, encode_function
from holdfast.payloads.likeness import likeness_of
from holdfast.payloads.plain import is_plain
from holdfast.payloads.values import (
    Encoded,
    decode_call,
    decode_result,
    encode_call,
    encode_result,
)

__all__ = [
    "Encoded",
    "RemoteTraceback",
    "decode_call",
    "decode_function",
    "decode_result",
    "encode_call",
    "encode_function",
    "encode_result",
    "exception_of",
    "failure_of",
    "is_plain",
    "likeness_of",
]
