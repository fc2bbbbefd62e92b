"""The benchmark of storage: its synthetic set is one that readers accept, at any size."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from gemvlm.shards import ShardReader

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import storage
    finally:
        sys.path.remove(str(BENCHMARKS))
    monkeypatch.setattr(storage, "SHARD_BYTES", 2 << 20)
    monkeypatch.setattr(storage, "PICTURES", 2)
    return storage


@pytest.mark.parametrize("samples", [5, 3000])
def test_every_sample_of_the_synthetic_set_can_be_read(bench, samples, tmp_path):
    bench.make_set(bench.make_kit(), tmp_path, samples)
    reader = ShardReader(tmp_path)
    assert len(reader) == samples and (reader.manifest.shards["images"] > 50) == (samples == 3000)
    for index in range(0, samples, 1 + samples // 20):
        sample = reader[index]
        assert sample.frames[0].image.shape == (480, 640, 3) and sample.frames[0].depth is not None
        assert sample.frames[0].depth.valid.all() and len(sample.turns) == bench.TURNS


def test_workers_report_what_they_saw(bench, tmp_path, capsys):
    bench.make_set(bench.make_kit(), tmp_path, 200)
    found = [bench.work(str(tmp_path), seed, reads=5) for seed in range(2)]
    bench.report(200, found)
    printed = capsys.readouterr().out
    for words in ("200 samples", "worker 1: opened in", "10 random reads of annotations alone", "p99"):
        assert words in printed
