"""Documents between processes: what goes in comes out, and nothing that comes in can run."""

import pickle

import msgpack
import numpy as np
import pytest

from bluesky_jit.intake.wire import ARRAY, deserialise, read_document, serialise


def test_documents_survive() -> None:
    document = {
        "uid": "a",
        "time": 1.5,
        "data": {"n": np.int64(3), "on": np.bool_(True)},
        "shape": [2, None],
        "t": (1, 2),
    }
    back = deserialise(serialise(document))
    assert back == {"uid": "a", "time": 1.5, "data": {"n": 3, "on": True}, "shape": [2, None], "t": [1, 2]}


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64", "int16", "bool", "<U5"])
def test_arrays_survive(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    back = deserialise(serialise({"image": array}))["image"]
    assert back.dtype == array.dtype
    assert back.shape == (2, 3)
    assert (back == array).all()


def test_what_would_need_pickle_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        serialise({"value": object()})
    with pytest.raises(TypeError, match="cannot be sent"):
        serialise({"value": np.array([object()])})


def test_a_pickle_is_not_loaded() -> None:
    with pytest.raises(ValueError):
        deserialise(pickle.dumps({"uid": "evil"}))


def test_a_message_is_a_name_and_a_document() -> None:
    assert read_document(b" ".join([b"prefix", b"start", serialise({"uid": "a b"})])) == ("start", {"uid": "a b"})


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"start",
        b" start \xc1",
        b" start " + msgpack.packb([1, 2]),
        b" start " + msgpack.packb({"uid": "a"})[:-1],
        b" start " + b"\x91" * 10_000,
        b" nonsense " + msgpack.packb({}),
        b" \xff\xfe " + msgpack.packb({}),
        b" event " + msgpack.packb({ARRAY: "<f8"}),
        b" event " + msgpack.packb({ARRAY: "O", "shape": [1], "data": b"12345678"}),
        b" event " + msgpack.packb({ARRAY: "nonsense", "shape": [1], "data": b"12345678"}),
        b" event " + msgpack.packb({ARRAY: 3, "shape": [1], "data": b"12345678"}),
        b" event " + msgpack.packb({ARRAY: "<f8", "shape": [3], "data": b"12345678"}),
    ],
)
def test_whatever_else_comes_is_refused_in_one_way(message: bytes) -> None:
    with pytest.raises(ValueError):
        read_document(message)
