"""Several sets in one stream, in exact proportion.

The stream is cut into blocks of `block` positions. In each block every set has a whole number of them, its weight's
share rounded by largest remainder, so that the proportion is exact over every block and never drifts. Which set stands
where in a block, and which of its samples, are keyed permutations: both follow from the position alone, and each set
shows all its samples before it repeats one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from gemvlm.data.collate import keyed
from gemvlm.data.loader import digest, permuted
from gemvlm.data.shares import largest_remainder


class Mixture(Sequence[Any]):
    """The sets one after another as a reader, and mixed by `weights` as a `Plan`: give it to `BatchStream` as both."""

    def __init__(
        self, sets: Mapping[str, Sequence[Any]], weights: Mapping[str, float], seed: int = 0, block: int = 1000
    ) -> None:
        if sets.keys() != weights.keys():
            raise ValueError(f"sets {sorted(sets)} but weights for {sorted(weights)}; give one weight for each set")
        empty = [name for name, samples in sets.items() if not len(samples)]
        if empty:
            raise ValueError(f"sets without samples: {', '.join(empty)}; leave them out")
        self.names = tuple(sorted(sets))
        self.quotas = tuple(largest_remainder([weights[name] for name in self.names], block))
        if min(self.quotas) == 0:
            raise ValueError(
                f"weights {dict(weights)} give a set no place among {block}; raise the block or the weight"
            )
        self._sets = [sets[name] for name in self.names]
        self._block, self._seed = block, seed
        self._starts = [0, *accumulate(len(samples) for samples in self._sets)]
        self._slots = [0, *accumulate(self.quotas)]
        self._layout: tuple[int, list[tuple[int, int]]] = (-1, [])

    @property
    def hash(self) -> str:
        """Of names, sizes, quotas and seed."""
        return digest("mixture", self.names, [len(samples) for samples in self._sets], self.quotas, self._seed)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Any:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in the mixture of {', '.join(self.names)}")
        index %= len(self)
        number = bisect_right(self._starts, index) - 1
        return self._sets[number][index - self._starts[number]]

    def member(self, position: int) -> tuple[int, int]:
        """(epoch of the sample's set, index) at a position of the stream."""
        block, place = divmod(position, self._block)
        number, before = self._places(block)[place]
        drawn = block * self.quotas[number] + before
        size = len(self._sets[number])
        epoch, at = divmod(drawn, size)
        index = permuted(at, size, keyed(self._seed, self.names[number]), epoch)
        return epoch, self._starts[number] + index

    def _places(self, block: int) -> list[tuple[int, int]]:
        """(set, how many of that set stand before it) for each place of a block; the last block is remembered."""
        if self._layout[0] != block:
            counts, layout = [0] * len(self._sets), []
            for place in range(self._block):
                slot = permuted(place, self._block, keyed(self._seed, "mixture"), block)
                number = bisect_right(self._slots, slot) - 1
                layout.append((number, counts[number]))
                counts[number] += 1
            self._layout = (block, layout)
        return self._layout[1]
