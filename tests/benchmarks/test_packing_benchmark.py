"""The benchmark of packing runs, and its claims hold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import packing
finally:
    sys.path.remove(str(BENCHMARKS))


def test_packing_removes_padding_and_fills_the_budget(capsys):
    result = packing.run(1500)
    assert result.as_they_come > 0.5
    assert result.closed_early < result.filled
    assert result.filled > 0.97
    assert "scores computed" in capsys.readouterr().out


def test_padding_is_counted_in_right_padded_rows():
    costs = np.array([[10, 0, 0], [30, 0, 0], [20, 0, 0], [20, 0, 0]])
    assert packing.padding(costs, [[0, 1], [2, 3]]) == 1 - 80 / 100
