"""What a picture looks like, in 64 bits that re-encoding, resizing and small changes of light leave almost alone.

The picture in grey at 32 x 32, its discrete cosine transform, and for each of the 64 lowest frequencies but the
constant whether it is above their median (the "pHash" of Zauner, Implementation and Benchmarking of Perceptual Image
Hash Functions, 2010). Two hashes are compared by the number of bits that differ.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, Int64, UInt8, UInt64
from PIL import Image

SIDE = 32
BITS = 64
LEAST_AMPLITUDE = 1.0
"""Mean size of the 64 coefficients, in grey levels, under which they are rounding and noise rather than a picture."""


def perceptual_hash(image: UInt8[np.ndarray, "H W 3"]) -> int | None:
    """The hash, 0 .. 2**64 - 1; None for a picture that is flat at this scale, which is like every other such."""
    small = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=None)
    grey = np.asarray(small, dtype=np.float64)
    basis = _cosines()
    rows, columns = _lowest_frequencies()
    coefficients = (basis @ grey @ basis.T)[rows, columns]
    if np.abs(coefficients).mean() < LEAST_AMPLITUDE:
        return None
    bits = np.packbits(coefficients > np.median(coefficients))
    return int.from_bytes(bits.tobytes(), "big")


def distances(value: int, hashes: UInt64[np.ndarray, "N"]) -> UInt8[np.ndarray, "N"]:
    """How many of 64 bits differ between `value` and each of `hashes`."""
    return np.bitwise_count(hashes ^ np.uint64(value))


@cache
def _cosines() -> Float[np.ndarray, "32 32"]:
    """The orthonormal DCT-II: row k is the k-th cosine."""
    k, n = np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]
    basis = np.cos(np.pi * k * (2 * n + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    return basis


@cache
def _lowest_frequencies() -> tuple[Int64[np.ndarray, "64"], Int64[np.ndarray, "64"]]:
    """Rows and columns of the 64 lowest frequencies after the constant, by their sum and then by row."""
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    order = np.lexsort((rows, rows + columns))[1 : BITS + 1]
    return rows[order], columns[order]
