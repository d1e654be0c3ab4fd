from __future__ import annotations

import datetime
import hashlib
import os
import signal
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest

from holdfast.errors import BlobTooLargeError, InvalidInputError, NotSerializableError
from holdfast.model.limits import INLINE_BYTES_MAX
from holdfast.model.outcome import Encoding, Payload
from holdfast.payloads import decode_call, decode_result, encode_call, encode_result, values
from holdfast.payloads.describing import line_of


@pytest.mark.parametrize(
    ("args", "kwargs", "encoding"),
    [
        ((), {}, Encoding.JSON),
        ((1, "x", [None]), {"key": {"a": 1.5}}, Encoding.JSON),
        (((1, 2),), {}, Encoding.PICKLE),
        ((b"bytes",), {}, Encoding.PICKLE),
        ((), {"when": datetime.date(2024, 2, 29)}, Encoding.PICKLE),
    ],
)
def test_a_call_comes_back(
    args: tuple[Any, ...], kwargs: dict[str, Any], encoding: Encoding, tmp_path: Path
) -> None:
    encoded = encode_call(args, kwargs, spill_to=tmp_path)
    assert encoded.payload.encoding is encoding
    assert encoded.payload.size_bytes == len(encoded.payload.data)
    assert decode_call(encoded.payload) == (args, kwargs)
    assert not list(tmp_path.iterdir())


def test_what_is_shared_stays_shared(tmp_path: Path) -> None:
    part = [1]
    (left, right), _ = decode_call(encode_call((part, part), {}, spill_to=tmp_path).payload)
    assert left is right


@pytest.mark.parametrize("value", ["x" * 100_000, b"x" * 300_000, [("a", 1)] * 100_000])
def test_a_large_value_is_spilled_to_a_file(value: object, tmp_path: Path) -> None:
    encoded = encode_result(value, spill_to=tmp_path, prefix="lane-1-")
    data = Path(encoded.path).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [Path(encoded.path).name]
    assert Path(encoded.path).name.startswith("lane-1-")
    assert encoded.payload.data == b""
    assert encoded.payload.size_bytes == len(data) > INLINE_BYTES_MAX
    assert encoded.payload.digest == hashlib.sha256(data).digest()
    assert decode_result(encoded.payload, encoded.path) == value


def test_a_large_call_is_read_from_its_file(tmp_path: Path) -> None:
    for args in (("x" * 100_000,), (b"x" * 100_000,)):
        encoded = encode_call(args, {}, spill_to=tmp_path)
        assert decode_call(encoded.payload, encoded.path) == (args, {})


class Holder:
    def __init__(self) -> None:
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (threading.Lock(), "result: _thread.lock"),
        ({"a": [1, 2, 3, threading.Lock()]}, "result['a'][3]: _thread.lock"),
        ({"a": Holder()}, "result['a'].lock: _thread.lock"),
        (((), {threading.current_thread}, (x for x in "ab")), "result[2]: builtins.generator"),
    ],
)
def test_the_part_that_does_not_pickle_is_named(value: object, part: str, tmp_path: Path) -> None:
    with pytest.raises(NotSerializableError) as caught:
        encode_result(value, spill_to=tmp_path)
    assert part in str(caught.value)


def test_the_argument_that_does_not_pickle_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotSerializableError, match=r"argument 1\[0\]: _thread.lock"):
        encode_call((1, [threading.Lock()]), {}, spill_to=tmp_path)
    with pytest.raises(NotSerializableError, match=r"argument 'key': _thread\.lock"):
        encode_call((), {"key": threading.Lock()}, spill_to=tmp_path)


class Raising:
    """Its pickling raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> NoReturn:
        raise self.error


class Elusive:
    """Raises at every look at it."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise SystemExit(name)


@pytest.mark.parametrize(
    "error",
    [
        OSError("backing file is gone"),
        BrokenPipeError("torn"),
        BlobTooLargeError("of the user"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
)
def test_whatever_the_class_of_a_value_raises_names_the_part(
    error: BaseException, tmp_path: Path
) -> None:
    part = rf"\[1\]: {__name__}.Raising: {line_of(error)}"
    for size in (1, 3_000_000):
        with pytest.raises(NotSerializableError, match=f"result{part}"):
            encode_result([b"x" * size, Raising(error)], spill_to=tmp_path)
        with pytest.raises(NotSerializableError, match=f"argument 0{part}"):
            encode_call(([b"x" * size, Raising(error)],), {}, spill_to=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_raises_at_every_look_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotSerializableError, match=rf"result\['a'\]: {__name__}.Elusive"):
        encode_result({"a": Elusive()}, spill_to=tmp_path)


def test_a_disk_that_cannot_be_written_is_no_error_of_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError):
        encode_result((b"x" * 100_000,), spill_to=tmp_path / "gone")

    def refuse(*_: object) -> NoReturn:
        raise OSError("no room")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="no room"):
        encode_result((b"x" * 100_000,), spill_to=tmp_path)
    assert not list(tmp_path.iterdir())


class Signalled:
    """A signal arrives while it is pickled or unpickled."""

    def __reduce__(self) -> Any:
        signal.raise_signal(signal.SIGINT)
        return (int, ())


def test_ctrl_c_meanwhile_passes(tmp_path: Path) -> None:
    for encode in (
        lambda: encode_result((Signalled(),), spill_to=tmp_path),
        lambda: encode_call((Signalled(),), {}, spill_to=tmp_path),
    ):
        with pytest.raises(KeyboardInterrupt):
            encode()


def test_nothing_is_left_of_a_large_value_that_does_not_pickle(tmp_path: Path) -> None:
    with pytest.raises(NotSerializableError):
        encode_result([b"x" * 200_000, threading.Lock()], spill_to=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_payload_above_the_limit_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "PAYLOAD_BYTES_MAX", 100_000)
    for value in (b"x" * 100_001, "x" * 100_001):
        with pytest.raises(BlobTooLargeError, match=r"more than 100000 bytes.*\(1000"):
            encode_result(value, spill_to=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1, {}]", b"[[], {}", b"[[]]", b"\xff", b"[" * 9999]
)
def test_what_is_no_call_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode_call(Payload(Encoding.JSON, data))


def test_a_pickle_of_something_else_is_no_call(tmp_path: Path) -> None:
    payload = encode_result((1, 2), spill_to=tmp_path).payload
    with pytest.raises(InvalidInputError, match="not one of"):
        decode_call(payload)


def test_no_result_is_none() -> None:
    assert decode_result(None) is None
    with pytest.raises(InvalidInputError):
        decode_result(Payload(Encoding.JSON, b"{"))


class Unread:
    """Its unpickling raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __setstate__(self, state: dict[str, BaseException]) -> NoReturn:
        raise state["error"]


class Untold(Exception):
    def __str__(self) -> NoReturn:
        raise SystemExit(4)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Untold()])
def test_what_would_end_the_caller_as_a_result_is_read_does_not(
    error: BaseException, tmp_path: Path
) -> None:
    for size in (1, 100_000):
        encoded = encode_result((b"x" * size, Unread(error)), spill_to=tmp_path)
        with pytest.raises(InvalidInputError, match=f"raises {type(error).__name__}") as caught:
            decode_result(encoded.payload, encoded.path)
        assert type(caught.value.__cause__) is type(error)


def test_another_exception_as_a_result_is_read_comes_through(tmp_path: Path) -> None:
    payload = encode_result(Unread(LookupError("k")), spill_to=tmp_path).payload
    with pytest.raises(LookupError, match="k"):
        decode_result(payload)


class Reading:
    """A signal arrives while it is unpickled."""

    def __reduce__(self) -> Any:
        return (signal.raise_signal, (signal.SIGINT,))


def test_ctrl_c_as_a_result_is_read_passes(tmp_path: Path) -> None:
    payload = encode_result(Reading(), spill_to=tmp_path).payload
    with pytest.raises(KeyboardInterrupt):
        decode_result(payload)
