"""Messages of AllenAI's vla-evaluation-harness: msgpack maps with type, payload, seq and timestamp; arrays inside.

An array is {"__ndarray__": true, data, dtype, shape}; a picture (height, width, 1, 3 or 4; uint8) is
{"__image__": true, format: "png" | "jpeg" | "raw", data, shape}, with dtype where raw. Read from
allenai/vla-evaluation-harness: `protocol/numpy_codec.py` at 18749fd, `protocol/image_codec.py` at 5ea6e51,
`model_servers/serve.py` at 03a7066, `connection.py` at 13de095, and all of them with `protocol/messages.py` again in
release 0.8.0, whose client has driven the server.
"""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from PIL import Image

PROTOCOL_VERSION = 1
TYPES = frozenset({"hello", "observation", "action", "episode_start", "episode_end", "error"})
LARGEST_MESSAGE = 64 * 2**20
LARGEST_PICTURE = 4096 * 4096
"""Pixels: a small file may hold a huge picture."""
ARRAY_KINDS = "biuf"
DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    RecursionError,
    EOFError,
    struct.error,
    zlib.error,
)
"""What reading hostile bytes may raise."""
EXTRA = "the evaluation harness is served with msgpack and websockets: pip install 'gemvlm[serve]'"


@dataclass(frozen=True)
class Message:
    """One message; `seq` of an answer is that of its question."""

    type: str
    payload: Mapping[str, Any]
    seq: int = 0


def pack(message: Message) -> bytes:
    """The message as bytes; arrays go raw, which both sides read."""
    import msgpack

    told = {"type": message.type, "payload": message.payload, "seq": message.seq, "timestamp": time.time()}
    return bytes(msgpack.packb(told, default=_encode, use_bin_type=True))


def unpack(data: bytes | str) -> Message:
    """ValueError naming what is wrong, whatever the bytes are."""
    import msgpack

    if isinstance(data, str):
        raise ValueError("a text frame; messages are binary msgpack")
    try:
        told = msgpack.unpackb(data, raw=False, object_hook=_decode, strict_map_key=True)
    except (*DAMAGE, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"{len(data)} bytes that are no message ({type(error).__name__}: {error})") from error
    if not isinstance(told, dict) or not {"type", "payload", "seq", "timestamp"} <= set(told):
        raise ValueError("no map of type, payload, seq and timestamp")
    if told["type"] not in TYPES:
        raise ValueError(f"unknown type {told['type']!r:.60}; known are {', '.join(sorted(TYPES))}")
    if not isinstance(told["payload"], dict) or not isinstance(told["seq"], int):
        raise ValueError(f"{told['type']}: payload must be a map and seq an integer")
    return Message(told["type"], told["payload"], told["seq"])


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a message")


def _decode(value: dict[str, Any]) -> Any:
    if "__image__" in value and value.get("format") != "raw":
        return _picture(value["data"])
    if "__image__" in value or "__ndarray__" in value:
        kind, shape = np.dtype(str(value["dtype"])), value["shape"]
        if kind.kind not in ARRAY_KINDS:
            raise ValueError(f"an array of {kind}; only truth values, integers and floats are read")
        if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError(f"an array's shape is {shape!r:.60}")
        if prod(shape) * kind.itemsize != len(value["data"]):
            raise ValueError(f"{len(value['data'])} bytes for an array of {kind} and shape {shape}")
        return np.frombuffer(value["data"], kind).reshape(shape)
    return value


def _picture(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > LARGEST_PICTURE:
                raise ValueError(f"a picture of {image.width} x {image.height} pixels is too large")
            return np.asarray(image)
    except (*DAMAGE, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"a picture that is neither PNG nor JPEG, or damaged ({error})") from error
