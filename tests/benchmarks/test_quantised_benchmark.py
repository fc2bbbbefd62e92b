"""The benchmark of quantised weights measures every scheme, on a model and on plain matrix products."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import quantised
finally:
    sys.path.remove(str(BENCHMARKS))


def test_matrix_products_alone(capsys) -> None:
    rows = quantised.size_rows(64, 1, 4, rounds=1, cpu_time=True)
    assert [row.name for row in rows] == ["as it is", "int8", "int8_dynamic", "int4"]
    assert all(0.98 < row.same < 1 + 1e-5 for row in rows) and abs(rows[0].same - 1) < 1e-5
    sizes = [row.done.bytes_after for row in rows]
    assert sizes[3] < sizes[1] <= sizes[2] < rows[1].done.bytes_before
    quantised.report("products", rows)
    assert "int8_dynamic" in capsys.readouterr().out


def test_a_models_answers_are_scored(monkeypatch) -> None:
    asked = quantised.questions(1, 1)[:2]
    monkeypatch.setattr(quantised, "questions", lambda scenes, per_family: asked)
    rows = quantised.text_rows("nano", 1, rounds=1, cpu_time=True)
    assert rows[0].same == 1 and all(0 <= row.score <= 1 and row.seconds > 0 for row in rows)
    assert all(row.done.layers == rows[1].done.layers > 0 for row in rows[1:3])
