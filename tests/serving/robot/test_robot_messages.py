"""What travels between a robot and its server comes back equal, and hostile bytes are refused before they cost."""

from __future__ import annotations

import tracemalloc

import msgpack
import numpy as np
import pytest

from gemvlm.serving.robot_messages import DTYPES, MessageError, pack, unpack
from gemvlm_client import messages as client_messages


def published(value: object) -> object:
    """An array in the form that openpi's client writes."""
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    assert isinstance(value, np.generic)
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays_come_back_equal_on_both_sides(dtype: str, shape: tuple[int, ...]):
    array = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)
    ours, clients = pack({"a": array}), client_messages.pack({"a": array})
    assert ours == clients == msgpack.packb({"a": array}, default=published)
    for back in (unpack(clients)["a"], client_messages.unpack(ours)["a"]):
        assert back.dtype == array.dtype and back.shape == array.shape
        assert np.array_equal(back, array)


def test_numpy_numbers_and_text_of_the_published_client_are_read():
    message = {"a": np.float32(1.5), "b": np.int64(-3), "c": np.bool_(True)}
    assert unpack(msgpack.packb(message, default=published)) == {"a": 1.5, "b": -3, "c": True}


def test_the_clients_arrays_may_be_of_the_other_byte_order_or_not_contiguous():
    array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    assert np.array_equal(unpack(client_messages.pack({"a": array}))["a"], array)


def array_of(**changes: object) -> bytes:
    fields = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]}
    fields |= {key.encode(): value for key, value in changes.items()}
    return msgpack.packb({"a": fields})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "incomplete"),
        (b"\xc1", "not a msgpack"),
        (b"\x81", "incomplete"),
        (pack({"a": 1}) + b"\x00", "extra"),
        (b"\x91" * 100_000, "not a msgpack"),
        (msgpack.packb({"a": [[[[[[[[[1]]]]]]]]]}), "deep"),
        (b"\xdd\xff\xff\xff\xff", "max_array_len"),
        (b"\xc6\xff\xff\xff\xff", "not a msgpack"),
        (msgpack.packb([[]] * 1000), "lists and maps"),
        (msgpack.packb([1]), "a map"),
        (msgpack.packb({"a": "x" * 20_000}), "max_str_len"),
        (msgpack.packb({"a": msgpack.ExtType(1, b"x")}), "max_ext_len"),
        (msgpack.packb({"a": msgpack.Timestamp(1)}), "max_ext_len"),
        (b"\x81\xa1\xff\x01", "not a msgpack"),
        (b"\x81\xc0\x01", "map key"),
        (b"\x82\xa1a\x01\xa1a\x02", "twice"),
        (msgpack.packb({b"prompt": "x"}), "text, not bytes"),
        (array_of(dtype="O"), "dtype 'O'"),
        (array_of(dtype="<M8[ns]"), "dtype"),
        (array_of(dtype=">f4"), "dtype"),
        (array_of(dtype="f4,f4"), "dtype"),
        (array_of(dtype=["<f4"]), "dtype"),
        (array_of(shape=[3]), "12 bytes"),
        (array_of(shape=[2**62, 4]), "sizes"),
        (array_of(shape=[-2]), "sizes"),
        (array_of(shape=[2.0]), "sizes"),
        (array_of(shape=[True, 2]), "sizes"),
        (array_of(shape=[1] * 5 + [2]), "sizes"),
        (array_of(shape=2), "sizes"),
        (array_of(data="text"), "bytes"),
        (array_of(data=None), "bytes"),
        (msgpack.packb({"a": {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}}), "numpy number"),
        (msgpack.packb({"a": {b"__npgeneric__": True, b"data": 1.5, b"dtype": "<i4"}}), "numpy number"),
    ],
)
def test_hostile_bytes_are_refused_with_the_reason(data: bytes, says: str):
    with pytest.raises(MessageError, match=says):
        unpack(data)


def test_a_message_may_not_be_larger_than_agreed():
    with pytest.raises(MessageError, match="at most 100 are read"):
        unpack(pack({"a": bytes(101)}), max_bytes=100)


def test_a_megabyte_of_hostile_lists_costs_little_memory():
    """One byte can stand for an empty list of 56: without a bound, 32 MiB would become 1.8 GB."""
    lists = msgpack.packb({"a": [[[]] * 1000] * 1000})
    nested = b"\x81\xa1a" + b"\xdc\x03\xff" * 500
    tracemalloc.start()
    for data in (lists, nested, b"\x81\xa1a" + b"\xdd\x7f\xff\xff\xff"):
        with pytest.raises(MessageError):
            unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize("value", [object(), np.array([None]), np.array(["x"]), np.array([1j]), {1, 2}, 2**70])
def test_what_the_other_side_could_not_read_is_not_packed(value: object):
    with pytest.raises(ValueError, match="can't be packed"):
        pack({"a": value})
    with pytest.raises(ValueError, match="can't be packed"):
        client_messages.pack({"a": value})
