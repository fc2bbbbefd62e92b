"""How alike two texts are, from 128 bytes each: MinHash over runs of three words.

The share of equal entries of two signatures estimates the Jaccard index of their sets of shingles, with a standard
error of sqrt(j (1 - j) / 64), at most 6 % (Broder, On the resemblance and containment of documents, 1997). Entries keep
16 of 32 bits (b-bit MinHash, Li and Koenig 2010): two different entries agree once in 65,536 by chance.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import blake2b

import numpy as np
from jaxtyping import Float, UInt16, UInt64

ENTRIES = 64
SHINGLE = 3
_PRIME = np.uint64(2**31 - 1)


def words(text: str) -> list[str]:
    """Lower-case words and numbers, in order: what text is compared by."""
    return re.findall(r"[^\W_]+", text.lower())


def ngram_hashes(tokens: list[str], length: int) -> UInt64[np.ndarray, "N"]:
    """The sorted distinct 64-bit hashes of every run of `length` words; of the whole if it is shorter."""
    count = max(1, len(tokens) - length + 1)
    runs = {" ".join(tokens[i : i + length]) for i in range(count)}
    digests = b"".join(blake2b(run.encode(), digest_size=8).digest() for run in runs)
    return np.unique(np.frombuffer(digests, dtype="<u8").astype(np.uint64))


def signature(text: str) -> UInt16[np.ndarray, "64"]:
    """The MinHash of a text; the same in every process and on every machine."""
    shingles = ngram_hashes(words(text), SHINGLE) % _PRIME
    factors, offsets = _permutations()
    lowest = ((factors[:, None] * shingles[None, :] + offsets[:, None]) % _PRIME).min(axis=1)
    return (lowest & np.uint64(0xFFFF)).astype(np.uint16)


def similarities(own: UInt16[np.ndarray, "64"], others: UInt16[np.ndarray, "N 64"]) -> Float[np.ndarray, "N"]:
    """The estimated Jaccard index of one text with each of the others."""
    return (others == own).mean(axis=1)


@cache
def _permutations() -> tuple[UInt64[np.ndarray, "64"], UInt64[np.ndarray, "64"]]:
    rng = np.random.default_rng(20260528)
    factors = rng.integers(1, int(_PRIME), ENTRIES, dtype=np.uint64)
    return factors, rng.integers(0, int(_PRIME), ENTRIES, dtype=np.uint64)
