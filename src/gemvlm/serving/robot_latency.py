"""How long answers took: a histogram of fixed size, its quantiles, and its text for Prometheus."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

FIRST_S = 0.0005
PER_DOUBLING = 8
BUCKETS = 18 * PER_DOUBLING


class Latencies:
    """Counts durations in buckets that grow by 9 %, from half a millisecond to two minutes; longer ones in the last.

    A quantile is thus right within 5 % however many durations were counted, and memory does not grow.
    """

    def __init__(self) -> None:
        self.counts = [0] * (BUCKETS + 1)
        self.total_s = 0.0
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        """Counts one duration of at least 0 s."""
        place = 0 if seconds <= FIRST_S else math.ceil(PER_DOUBLING * math.log2(seconds / FIRST_S))
        with self._lock:
            self.counts[min(place, BUCKETS)] += 1
            self.total_s += seconds

    def quantile(self, q: float) -> float:
        """The duration in seconds below which a fraction `q` in (0, 1] of all lies; nan where nothing was counted."""
        counts = list(self.counts)
        rank, seen = q * sum(counts), 0
        for place, count in enumerate(counts):
            seen += count
            if count and seen >= rank:
                return _edge_s(place) * 2 ** (-0.5 / PER_DOUBLING)  # the bucket's middle
        return math.nan

    def summary_ms(self) -> dict[str, float]:
        """The median and the two tails that a robot feels, in milliseconds."""
        return {f"p{round(100 * q)}_ms": round(1000 * self.quantile(q), 3) for q in (0.5, 0.9, 0.99)}

    def prometheus(self, name: str, help_text: str) -> str:
        """A histogram in Prometheus' text format, one bucket for each doubling."""
        lines = [f"# HELP {name} {help_text}", f"# TYPE {name} histogram"]
        counts, total_s = list(self.counts), self.total_s
        for place in range(0, BUCKETS, PER_DOUBLING):
            lines.append(f'{name}_bucket{{le="{_edge_s(place):g}"}} {sum(counts[: place + 1])}')
        lines += [
            f'{name}_bucket{{le="+Inf"}} {sum(counts)}',
            f"{name}_sum {total_s:.6f}",
            f"{name}_count {sum(counts)}",
        ]
        return "\n".join(lines) + "\n"


def counters(values: Mapping[str, tuple[str, str, float]]) -> str:
    """Plain numbers in Prometheus' text format: name -> (kind, help, value)."""
    return "".join(
        f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n{name} {value:g}\n"
        for name, (kind, help_text, value) in values.items()
    )


def _edge_s(place: int) -> float:
    return FIRST_S * 2 ** (place / PER_DOUBLING)
