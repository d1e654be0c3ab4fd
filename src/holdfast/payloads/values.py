"""Arguments and results as payloads: inline JSON or pickle, spilled to a file when large.

A payload above `INLINE_BYTES_MAX` is written to a file while it is made, and hashed on the way, so
that memory holds the value but no second copy of a large pickle. The caller owns the file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from holdfast.errors import BlobTooLargeError, InvalidInputError, NotSerializableError
from holdfast.model.limits import INLINE_BYTES_MAX, PAYLOAD_BYTES_MAX
from holdfast.model.outcome import Encoding, Payload
from holdfast.payloads import pickling
from holdfast.payloads.describing import is_sound, line_of
from holdfast.payloads.interrupts import is_of_a_signal
from holdfast.payloads.plain import are_plain, is_plain

_JSON = msgspec.json.Encoder()
_CALL = msgspec.json.Decoder(tuple[tuple[Any, ...], dict[str, Any]])
_VALUE = msgspec.json.Decoder()
_PIECE_BYTES = 1 << 20

Folder = Path | str | None
"""Where large payloads go; None: to the system's folder for temporary files."""
PARTIAL_SUFFIX = ".part"
"""A spilled payload has this suffix until it is whole."""


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """A payload, and the file with its bytes where it is not inline ("" otherwise)."""

    payload: Payload
    path: str = ""


def encode_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], *, spill_to: Folder, prefix: str = "call-"
) -> Encoded:
    """Encode the arguments of a call: JSON `[[args...], {kwargs...}]`, or a pickle of both.

    A large one goes to a fresh file in the folder `spill_to`; the caller removes it.
    Raises NotSerializableError naming the part, whatever its class raised; BlobTooLargeError above
    `PAYLOAD_BYTES_MAX`; OSError only where that file cannot be written.
    """
    if are_plain((*args, kwargs)):
        return _inline(_JSON.encode((args, kwargs)), "the arguments", spill_to, prefix)
    spill = _Spill("the arguments", spill_to, prefix)
    return _pickled((args, kwargs), spill, lambda: _blame_call(args, kwargs))


def encode_result(
    value: object, *, spill_to: Folder, prefix: str = "result-", pickled: bool = False
) -> Encoded:
    """Encode a result: JSON where that is exact, else, or where `pickled` asks for it, a pickle.

    A large one goes to a fresh file in the folder `spill_to`; the caller removes it.
    Raises NotSerializableError naming the part, whatever its class raised; BlobTooLargeError above
    `PAYLOAD_BYTES_MAX`; OSError only where that file cannot be written.
    """
    if not pickled and is_plain(value):
        return _inline(_JSON.encode(value), "the result", spill_to, prefix)
    spill = _Spill("the result", spill_to, prefix)
    return _pickled(value, spill, lambda: pickling.blame(value, "result"))


def decode_call(payload: Payload, path: str = "") -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the (args, kwargs) of a payload; `path` names the file of one that is not inline.

    Raises InvalidInputError where the bytes are not a call. What a pickle raises by itself (such
    as ImportError where a module is missing) comes through as it is.
    """
    if payload.encoding is Encoding.JSON:
        try:
            return _CALL.decode(_bytes_of(payload, path))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInputError(
                f"the arguments are not JSON of the shape [[args...], {{kwargs...}}]: {error}"
            ) from None
    call = pickling.load_file(path) if path else pickling.loads(payload.data)
    match call:
        case (tuple() as args, dict() as kwargs):
            return args, kwargs
    raise InvalidInputError("the arguments are a pickle, but not one of (args, kwargs)")


def decode_result(payload: Payload | None, path: str = "") -> Any:
    """Return the value of a result; `path` names the file of one that is not inline.

    Unpickles: only for results of submitters that the caller trusts. Raises InvalidInputError
    where JSON is broken, and where a pickle raises what would end the caller (SystemExit and its
    like) or what cannot be described; another exception of a pickle comes through as it is.
    """
    if payload is None:
        return None
    if payload.encoding is Encoding.JSON:
        try:
            return _VALUE.decode(_bytes_of(payload, path))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInputError(f"the result is not JSON: {error}") from None
    try:
        return pickling.load_file(path) if path else pickling.loads(payload.data)
    except BaseException as error:
        if is_of_a_signal(error) or (issubclass(type(error), Exception) and is_sound(error)):
            raise
        raise InvalidInputError(f"unpickling it raises {line_of(error)}") from error


def _bytes_of(payload: Payload, path: str) -> bytes:
    return Path(path).read_bytes() if path else payload.data


def _inline(data: bytes, what: str, spill_to: Folder, prefix: str) -> Encoded:
    if len(data) <= INLINE_BYTES_MAX:
        return Encoded(Payload(Encoding.JSON, data, size_bytes=len(data)))
    with _Spill(what, spill_to, prefix) as spill:
        spill.write(data)
        return spill.finish(Encoding.JSON)


def _pickled(value: object, spill: _Spill, blame: Callable[[], str]) -> Encoded:
    with spill:
        try:
            pickling.dump(value, spill)
        except MemoryError:
            raise
        except BaseException as error:
            # A disk of ours and a class of the user raise the same; only the first is our fault.
            if error is spill.fault or is_of_a_signal(error):
                raise
            raise NotSerializableError(
                f"{spill.what} cannot be pickled: {blame()}. Pass plain data, or what it is made "
                f"from, instead"
            ) from error
        return spill.finish(Encoding.PICKLE)


def _blame_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    for index, value in enumerate(args):
        if text := pickling.refusal_of(value, f"argument {index}"):
            return text
    for name, value in kwargs.items():
        if text := pickling.refusal_of(value, f"argument {name!r}"):
            return text
    return pickling.blame((args, kwargs), "(args, kwargs)")


class _Spill:
    """Bytes in memory up to the inline limit, in a file beyond it, hashed on the way.

    The file has `PARTIAL_SUFFIX` until `finish`, and is removed where that is not reached.
    """

    def __init__(self, what: str, folder: Folder, prefix: str) -> None:
        self.what = what
        self.fault: Exception | None = None
        """What this raised by itself, while a value was written to it."""
        self._folder = folder
        self._prefix = prefix
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._file: BinaryIO | None = None
        self._path = ""
        self._hash = hashlib.sha256()

    def __enter__(self) -> _Spill:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            os.unlink(self._path)

    def write(self, data: Any, /) -> int:
        """Take one piece. Raises BlobTooLargeError past the limit, OSError where the disk does."""
        try:
            return self._write(data)
        except (BlobTooLargeError, OSError) as error:
            self.fault = error
            raise

    def _write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._size_bytes += size
        if self._size_bytes > PAYLOAD_BYTES_MAX:
            raise BlobTooLargeError(
                f"{self.what} came to more than {PAYLOAD_BYTES_MAX} bytes, the most of one payload "
                f"({self._size_bytes} bytes so far). Write large data to storage of your own and "
                f"pass its name"
            )
        if self._file is None and self._size_bytes <= INLINE_BYTES_MAX:
            self._pieces.append(bytes(data))
            return size
        if self._file is None:
            self._file = self._open()
        self._hash.update(data)
        self._file.write(data)
        return size

    def _open(self) -> BinaryIO:
        from tempfile import mkstemp

        descriptor, self._path = mkstemp(PARTIAL_SUFFIX, self._prefix, self._folder)
        file = os.fdopen(descriptor, "wb", buffering=_PIECE_BYTES)
        for piece in self._pieces:
            self._hash.update(piece)
            file.write(piece)
        self._pieces.clear()
        return file

    def finish(self, encoding: Encoding) -> Encoded:
        """Return the payload; its file, where there is one, is whole and has its last name."""
        size = self._size_bytes
        if self._file is None:
            return Encoded(Payload(encoding, b"".join(self._pieces), size_bytes=size))
        self._file.close()
        path = self._path.removesuffix(PARTIAL_SUFFIX)
        os.rename(self._path, path)
        self._file = None
        return Encoded(Payload(encoding, digest=self._hash.digest(), size_bytes=size), path)
