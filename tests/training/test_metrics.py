"""Metrics of a run, whatever interrupted it."""

from __future__ import annotations

from pathlib import Path

from gemvlm.training.metrics import MetricsLog, read_metrics


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
