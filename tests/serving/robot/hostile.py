"""Messages that nobody should send: a seeded mutator of good ones, from flipped bits to fields of the wrong kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
from servo_policy import SIZE

STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x" * 20_000,
    b"",
    b"\x80\x04cos\nsystem\n",
    [],
    [[[[[[[[[1]]]]]]]]],
    {},
    {"__ndarray__": True},
    {"__ndarray__": True, "data": b"", "dtype": "O", "shape": [1]},
    {"__ndarray__": True, "data": b"12345678", "dtype": "<f8", "shape": [2**62, 2**62]},
    {"__ndarray__": True, "data": bytes(4), "dtype": "<f4", "shape": [-1]},
    {"__npgeneric__": True, "data": "1", "dtype": "<f4"},
    msgpack.ExtType(5, b"x" * 8),
)


def good() -> dict[str, Any]:
    """An observation that is answered."""
    image = {"__ndarray__": True, "data": bytes(SIZE * SIZE * 3), "dtype": "|u1", "shape": [SIZE, SIZE, 3]}
    return {"observation/front": image, "observation/state": [0.0, 0.0], "prompt": "go", "step": 0, "time_s": 1.0}


def messages(count: int, seed: int) -> Iterator[bytes | str]:
    """`count` mutations, each a function of (seed, its number)."""
    clean = msgpack.packb(good())
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        yield _MUTATIONS[number % len(_MUTATIONS)](rng, clean)


def _flipped(rng: np.random.Generator, clean: bytes) -> bytes:
    """Some bits turned, most of them where the structure is."""
    data = bytearray(clean)
    for place in rng.integers(0, 60, int(rng.integers(1, 6))):
        data[int(place)] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _cut(rng: np.random.Generator, clean: bytes) -> bytes:
    return clean[: int(rng.integers(len(clean)))]


def _lengthened(rng: np.random.Generator, clean: bytes) -> bytes:
    return clean + rng.bytes(int(rng.integers(1, 200)))


def _noise(rng: np.random.Generator, clean: bytes) -> bytes:
    return rng.bytes(int(rng.integers(0, 2000)))


def _text(rng: np.random.Generator, clean: bytes) -> str:
    return "".join(map(chr, rng.integers(32, 0xD7FF, int(rng.integers(0, 300)))))


def _wrong_field(rng: np.random.Generator, clean: bytes) -> bytes:
    """One field of the wrong kind, missing, or unknown."""
    fields = good()
    name = str(rng.choice([*fields, "committed", "seed", "sent_s", "reset", "images", "state", "__class__"]))
    if rng.random() < 0.2:
        fields.pop(name, None)
    else:
        fields[name] = STRANGE[int(rng.integers(len(STRANGE)))]
    return msgpack.packb(fields)


def _wrong_array(rng: np.random.Generator, clean: bytes) -> bytes:
    """An array whose parts do not fit together."""
    fields = good()
    part = str(rng.choice(["data", "dtype", "shape", "__ndarray__"]))
    fields["observation/front"] |= {part: STRANGE[int(rng.integers(len(STRANGE)))]}
    return msgpack.packb(fields)


def _swollen(rng: np.random.Generator, clean: bytes) -> bytes:
    """Small messages that claim, or become, large ones."""
    heads = (b"\xdd\x7f\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xdb\x7f\xff\xff\xff", b"\xc6\x7f\xff\xff\xff")
    head = heads[int(rng.integers(len(heads)))]
    filling = (b"\x90" * 200_000, b"\xdc\x03\xff" * 20_000, b"\x91" * 200_000, b"")[int(rng.integers(4))]
    return b"\x81\xa1a" + (head + filling if rng.random() < 0.5 else filling)


_MUTATIONS = (_flipped, _cut, _lengthened, _noise, _text, _wrong_field, _wrong_array, _swollen)
