"""Messages to and from a policy server: msgpack with numpy arrays, in openpi's form.

An array is the map `{__ndarray__: true, data, dtype, shape}` with byte strings for keys. Format:
Physical-Intelligence/openpi, packages/openpi-client/src/openpi_client/msgpack_numpy.py (openpi-client 0.1.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np


def pack(message: Mapping[str, Any]) -> bytes:
    """The bytes of a message of numbers, text, lists, maps and arrays of numbers. ValueError for anything else."""
    try:
        return msgpack.packb(message, default=_plain)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"this message can't be packed: {error}") from None


def unpack(data: bytes) -> Any:
    """What `pack` was given, its arrays read-only. ValueError if it is no message, or an array is damaged."""
    try:
        return msgpack.unpackb(data, object_hook=_restore)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ValueError(f"the server's message can't be read: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        value = value.astype(value.dtype.newbyteorder("<"), copy=False)
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(f"{kind}: neither numbers nor text")


def _restore(fields: dict) -> Any:
    if b"__ndarray__" not in fields:
        return fields
    dtype = np.dtype(fields[b"dtype"])
    if dtype.kind not in "biuf":
        raise ValueError(f"an array of {dtype}, which is no number")
    return np.frombuffer(fields[b"data"], dtype).reshape(fields[b"shape"])
