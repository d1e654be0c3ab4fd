"""What a pickle would make is read from its opcodes, and nothing is loaded."""

from __future__ import annotations

import collections
import io
import pickle
from typing import Any

import cloudpickle
import dill
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.web import opcodes
from holdfast.web.opcodes import BadPickleError, kind_of, may_be_a_call, may_be_called

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.lists(inner).map(tuple)
        | st.sets(st.integers())
        | st.frozensets(st.text())
    ),
    max_leaves=8,
)


class Called:
    def __call__(self) -> None: ...


def nested(function: Any) -> Any:
    return lambda *args: function(*args)


@pytest.mark.parametrize("dump", [pickle.dumps, cloudpickle.dumps, dill.dumps])
@pytest.mark.parametrize("function", [len, Called, Called(), collections.OrderedDict, io.StringIO])
def test_what_may_be_called(dump: Any, function: Any) -> None:
    assert may_be_called(kind_of(dump(function)))


@pytest.mark.parametrize("dump", [cloudpickle.dumps, dill.dumps])
def test_functions_by_value_may_be_called(dump: Any) -> None:
    assert may_be_called(kind_of(dump(lambda x: x + 1)))
    assert may_be_called(kind_of(dump(nested(nested(len)))))


@given(_plain, st.sampled_from(PROTOCOLS))
def test_data_may_not_be_called(value: object, protocol: int) -> None:
    kind = kind_of(pickle.dumps(value, protocol))
    # Before protocol 2 some data is made by calls, as far as one can see.
    if protocol >= 4:
        assert not may_be_called(kind)


@given(st.lists(_plain).map(tuple), st.dictionaries(st.text(), _plain), st.sampled_from(PROTOCOLS))
def test_a_call_is_known_by_its_shape(args: Any, kwargs: Any, protocol: int) -> None:
    assert may_be_a_call(kind_of(pickle.dumps((args, kwargs), protocol)))
    assert may_be_a_call(kind_of(dill.dumps((args, kwargs))))


@given(_plain)
def test_what_is_no_call_is_known_by_its_shape(value: object) -> None:
    is_call = (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], tuple)
        and isinstance(value[1], dict)
    )
    assert may_be_a_call(kind_of(pickle.dumps(value))) == is_call


@given(_plain, st.data())
def test_what_breaks_off_is_no_pickle(value: object, data: st.DataObject) -> None:
    whole = pickle.dumps(value)
    with pytest.raises(BadPickleError):
        kind_of(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_through(data: bytes) -> None:
    try:
        kind_of(data)
    except BadPickleError:
        return


@pytest.mark.parametrize(
    "data", [b".", b"0.", b"t.", b"\x85.", b"s.", b"h\x00.", b"(.", b"2.", b"R."]
)
def test_what_takes_more_than_it_made(data: bytes) -> None:
    if data == b"h\x00.":
        assert kind_of(data).name == opcodes.OBJECT, "what it names may have been put by anything"
    else:
        with pytest.raises(BadPickleError):
            kind_of(data)


def test_of_a_long_pickle_only_the_end_is_looked_at() -> None:
    long = pickle.dumps(list(range(opcodes.OPCODES_MAX)))
    assert kind_of(long).name == opcodes.OBJECT
    with pytest.raises(BadPickleError):
        kind_of(long[:-1])


def test_nothing_is_loaded() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (print, ("loaded",))

    assert kind_of(pickle.dumps(Bomb())).name == opcodes.OBJECT
    assert kind_of(pickle.dumps((Bomb(), {}))).parts is not None
