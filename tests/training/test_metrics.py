"""Metrics of a run, whatever interrupted it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from gemvlm.batch import Batch
from gemvlm.training.metrics import TRACKERS, MetricsLog, Speedometer, read_metrics


def write(folder: Path, steps: range, resumed: int = 0) -> None:
    log = MetricsLog(folder, resumed)
    for step in steps:
        log.write(step, "1-connector", {"loss/depth": 1 / step})
    log.close()


def steps(folder: Path) -> list[int]:
    return [line["step"] for line in read_metrics(folder / "metrics.jsonl")]


def test_lines_hold_the_step_the_stage_and_the_values(tmp_path: Path) -> None:
    write(tmp_path, range(2, 3))
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 2, "stage": "1-connector", "loss/depth": 0.5}]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_resumed_log_never_holds_a_step_twice(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    write(tmp_path, range(6, 9), resumed=5)
    assert steps(tmp_path) == list(range(1, 9))


def test_the_half_line_of_a_kill_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    assert steps(tmp_path) == [1, 2]
    write(tmp_path, range(3, 4), resumed=3)
    assert steps(tmp_path) == [1, 2, 3]


def test_a_run_from_the_start_forgets_an_older_one(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    write(tmp_path, range(1, 3))
    assert steps(tmp_path) == [1, 2]


def test_no_file_is_an_empty_log(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


class Sent:
    """Stands in for a tracker's module and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def init(self, **options: object) -> Sent:
        self.told.append(("init", options))
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.told.append(("log", (step, values)))

    def finish(self) -> None:
        self.told.append(("finish", None))


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_trackers_get_the_numbers_and_no_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent()
    monkeypatch.setitem(sys.modules, name, sent)  # type: ignore[arg-type]
    log = MetricsLog(tmp_path / "run", trackers=(name,))
    log.write(3, "1-connector", {"loss/depth": 0.5})
    log.close()
    assert [kind for kind, _ in sent.told] == ["init", "log", "finish"]
    assert sent.told[1][1] == (3, {"loss/depth": 0.5})
    options = sent.told[0][1]
    assert isinstance(options, dict) and options["name"] == "run" and "config" not in options


def test_a_tracker_that_is_missing_or_unknown_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ImportError, match="pip install trackio"):
        MetricsLog(tmp_path, trackers=("trackio",))
    with pytest.raises(ValueError, match="unknown tracker 'mlflow'; there are wandb, trackio"):
        MetricsLog(tmp_path, trackers=("mlflow",))


def test_the_speedometer_counts_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("gemvlm.training.metrics.time.perf_counter", lambda: clock[0])
    meter = Speedometer(lambda batch: 50.0, peak=100.0)
    batch = Batch(
        input_ids=torch.zeros(7, dtype=torch.int64),
        segment_ids=torch.zeros(7, dtype=torch.int64),
        position_ids=torch.zeros(3, 7, dtype=torch.int64),
        labels=torch.zeros(7, dtype=torch.int64),
        pixel_values=torch.zeros(4, 6),
        image_grid_thw=torch.ones(2, 3, dtype=torch.int64),
        spans=torch.zeros(2, 2, dtype=torch.int64),
        sample_ids=("a", "b", "c"),
    )
    meter.add([batch, batch])
    clock[0] += 2.0
    assert meter.rates(processes=2) == {
        "samples_per_s": 6.0,
        "images_per_s": 4.0,
        "tokens_per_s": 14.0,
        "operations_per_sample": 100 / 6,
        "utilisation": 0.5,
    }
    clock[0] += 1.0
    assert meter.rates()["tokens_per_s"] == 0.0
    assert "utilisation" not in Speedometer().rates()
