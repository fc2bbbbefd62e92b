"""Killed at any moment, by SIGKILL, a training that is begun again has the same curve and weights, bit for bit."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from gemvlm.training.loop import FINAL
from gemvlm.training.metrics import read_metrics

RATES = ("samples_per_s", "images_per_s", "tokens_per_s")
STAGES = [{"number": 2, "steps": 6, "ema": 0.9}, {"number": 3, "steps": 6, "batch_size": 4, "at_once": 2}]
PACKED = [{"number": 3, "steps": 24, "ema": 0.9, "turns_per_sample": 1}]
LONG: dict[str, Any] = {"stages": PACKED, "budget": [300, 500, 6], "workers": 2, "patience": 300}


def result(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The curve without what depends on the clock, and hashes of the final weights."""
    lines = read_metrics(folder / "metrics.jsonl")
    curve = [{k: v for k, v in line.items() if k not in RATES} for line in lines]
    files = sorted((folder / FINAL).glob("model*.safetensors"))
    return curve, [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def finish(crew: Any, folder: Path, kills: list[dict[str, Any]], **options: Any) -> int:
    """Kills a run again and again, then lets it finish; how many kills found it alive."""
    alive = 0
    for kill in kills:
        found = crew("train", folder=str(folder), **options, **kill)
        if found["codes"] == [-9] and not found["hung"]:
            alive += 1
        else:
            assert found["codes"] == [0], found
    found = crew("train", folder=str(folder), **options)
    assert found["values"] == [True], found
    assert not list(folder.glob("*.draft"))
    return alive


def test_three_kills_at_writes_change_nothing(crew: Any, tmp_path: Path) -> None:
    """Between two tensor files, before the state is written, and before the folder gets its name."""
    crew("train", folder=str(tmp_path / "whole"), stages=STAGES)
    kills = [{"kill_at": count} for count in (3, 13, 10)]
    assert finish(crew, tmp_path / "killed", kills, stages=STAGES) == 3
    assert result(tmp_path / "killed") == result(tmp_path / "whole")


@pytest.mark.slow
def test_twenty_kills_change_nothing(crew: Any, tmp_path: Path) -> None:
    """Ten at checkpoint writes and ten at random, with loader workers, packing, mixed samples and an average."""
    whole = crew("train", folder=str(tmp_path / "whole"), **LONG)
    assert whole["values"] == [True], whole
    draw = random.Random(0)
    alive, rounds = 0, 0
    while alive < 20:
        kills = [{"kill_at": draw.randrange(1, 24)} if n % 2 else {"kill": draw.uniform(0.5, 6.0)} for n in range(6)]
        folder = tmp_path / f"killed-{rounds}"
        alive += finish(crew, folder, kills, **LONG)
        rounds += 1
        assert result(folder) == result(tmp_path / "whole")
    assert rounds <= 12


@pytest.mark.slow
def test_two_processes_killed_go_on(crew: Any, tmp_path: Path) -> None:
    """One of two is killed, the other must not hang."""
    options = {"folder": str(tmp_path / "run"), "stages": STAGES}
    whole = crew("train", world=2, **{**options, "folder": str(tmp_path / "whole")})
    assert whole["values"] == [True, True], whole
    found = crew("train", world=2, signal_at={"rank": 1, "number": 9, "step": 6}, callback_every=1, **options)
    assert -9 in found["codes"] and 0 not in found["codes"], found
    found = crew("train", world=2, **options)
    assert found["values"] == [True, True], found
    run, whole_run = (result(tmp_path / name) for name in ("run", "whole"))
    assert run == whole_run
