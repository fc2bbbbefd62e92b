"""Messages between a robot and its server: msgpack with numpy arrays, as openpi writes them, read with distrust.

An array is the map `{__ndarray__: true, data, dtype, shape}`, a numpy number `{__npgeneric__: true, data, dtype}`; the
keys are byte strings as published, text is read as well. Nothing here can run what a message holds: dtypes come from a
list of numbers, never from the text in the message.

Format: Physical-Intelligence/openpi, packages/openpi-client/src/openpi_client/msgpack_numpy.py (openpi-client 0.1.2),
src/openpi/serving/websocket_policy_server.py at c4973e71.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

DTYPES = {
    name: np.dtype(name) for name in ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
}
"""The numbers that an array of a message may hold: little-endian integers and floats."""

MAX_DIMENSIONS = 4
MAX_DEPTH = 8
MAX_CONTAINERS = 256
MAX_ITEMS = 1024
MAX_TEXT = 16_384

_KEYS = ("__ndarray__", "__npgeneric__", "data", "dtype", "shape")


class MessageError(ValueError):
    """A message that can't be read: what is wrong with it, and where."""


def pack(message: Mapping[str, Any]) -> bytes:
    """The bytes of a message. MessageError for what the other side could not read."""
    try:
        return msgpack.packb(message, default=_plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"this message can't be packed: {error}") from None


def unpack(data: bytes, max_bytes: int = 32 * 2**20) -> dict[str, Any]:
    """The message in `data`, its arrays read-only views of it.

    What a hostile message costs is bounded: by `max_bytes`, by the number, length and depth of its lists and maps, and
    by arrays that hold exactly the bytes that they brought. MessageError says what was beyond or broken.
    """
    if len(data) > max_bytes:
        raise MessageError(f"the message has {len(data):,} bytes, at most {max_bytes:,} are read")
    reader = _Reader()
    try:
        message = msgpack.unpackb(
            data,
            object_pairs_hook=reader.on_map,
            list_hook=reader.on_list,
            strict_map_key=True,
            max_str_len=MAX_TEXT,
            max_bin_len=max_bytes,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
        )
    except MessageError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise MessageError(f"not a msgpack message that is read here: {reason[:200]}") from None
    if not isinstance(message, dict):
        raise MessageError(f"a message is a map of fields, this is a {type(message).__name__}")
    _check_depth(message)
    return message


def _plain(value: Any) -> Any:
    """What msgpack does not know by itself."""
    if isinstance(value, np.ndarray):
        if value.dtype.str not in DTYPES:
            raise TypeError(f"an array of dtype {value.dtype}; it must be one of {', '.join(DTYPES)}")
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    raise TypeError(f"a {type(value).__name__}")


class _Reader:
    """Counts the containers of one message while they are built, and turns maps that stand for arrays into arrays."""

    def __init__(self) -> None:
        self.containers = 0

    def _count(self) -> None:
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise MessageError(f"more than {MAX_CONTAINERS} lists and maps")

    def on_list(self, items: list[Any]) -> list[Any]:
        self._count()
        return items

    def on_map(self, pairs: list[tuple[str | bytes, Any]]) -> Any:
        self._count()
        fields: dict[str, Any] = {}
        for key, value in pairs:
            name = key if isinstance(key, str) else key.decode("ascii", "replace")
            if isinstance(key, bytes) and name not in _KEYS:
                raise MessageError(f"{name[:40]!r}: names of fields are text, not bytes")
            if name in fields:
                raise MessageError(f"{name[:40]!r} stands in a map twice")
            fields[name] = value
        if "__ndarray__" in fields:
            return _array(fields)
        if "__npgeneric__" in fields:
            return _number(fields)
        return fields


def _array(fields: dict[str, Any]) -> np.ndarray:
    data, shape = fields.get("data"), fields.get("shape")
    dtype = _dtype(fields.get("dtype"))
    if not isinstance(data, bytes):
        raise MessageError(f"an array's data are bytes, not a {type(data).__name__}")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or not all(type(n) is int and 0 <= n < 2**31 for n in shape)
    ):
        raise MessageError(f"an array's shape is a list of at most {MAX_DIMENSIONS} sizes")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise MessageError(
            f"an array of shape {shape} and dtype {dtype.str} has {math.prod(shape) * dtype.itemsize:,} bytes, "
            f"{len(data):,} came"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _number(fields: dict[str, Any]) -> int | float | bool | str:
    """A numpy number, or numpy text, as Python's own."""
    data, dtype = fields.get("data"), fields.get("dtype")
    if isinstance(data, bool) and dtype == "|b1":
        return data
    if isinstance(data, str) and isinstance(dtype, str) and dtype.startswith("<U"):
        return data
    kind = _dtype(dtype).kind
    if type(data) is int or (type(data) is float and kind == "f"):
        return float(data) if kind == "f" else data
    raise MessageError(f"a numpy number of dtype {dtype!r} can't be a {type(data).__name__}")


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or name not in DTYPES:
        raise MessageError(f"dtype {str(name)[:20]!r} is not read; send one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _check_depth(value: Any, depth: int = 1) -> None:
    if depth > MAX_DEPTH:
        raise MessageError(f"lists and maps more than {MAX_DEPTH} deep")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)
