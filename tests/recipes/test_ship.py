"""What is shipped is small, loads, tells its scores beside blind ones, and lists its own files."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from gemvlm.inference import load
from gemvlm.inference.load import shipped_checkpoints
from gemvlm.recipes import ship

SCORE = {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 50}
BLIND = {name: {**SCORE, "mean": mean} for name, mean in (("chance", 0.1), ("majority", 0.3))}
METHODS = {
    "model": {"abs_rel": [0.1, 0.05, 0.2], "delta1": [0.9, 0.8, 1.0]},
    "constant": {"abs_rel": [0.4, 0.3, 0.5], "delta1": [0.5, 0.4, 0.6]},
    "mean map": {"abs_rel": [0.3, 0.2, 0.4], "delta1": [0.4, 0.3, 0.5]},
    "other image": {"abs_rel": [0.2, 0.1, 0.3], "delta1": [0.6, 0.5, 0.7]},
}
SCORES = {
    "questions": [{"family": "point", "task": "grounding", "subset": "all", "score": SCORE, "baselines": BLIND}],
    "depth": {reading: {"objects": METHODS} for reading in ("aligned", "metric")},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has ended, beside the scores of its weights."""
    folder = tmp_path / "run"
    shutil.copytree(shipped_checkpoints()["nano"], folder / "final")
    shutil.move(folder / "final" / "metrics.jsonl", folder / "metrics.jsonl")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "scores.json").write_text(json.dumps(SCORES))
    return folder


def test_a_shipped_folder_is_whole(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "small"
    ship.ship(run / "final", tmp_path / "scores", target)
    card = load(target, "cpu").card
    assert card.scores["questions"]["point, all"] == {**SCORE, "blind": {"name": "majority", "mean": 0.3}}
    assert card.scores["depth"]["metric"] == METHODS["model"]
    assert card.scores["depth_blind"]["metric"] == {
        "abs_rel": {"name": "mean map", "mean": 0.3},
        "delta1": {"name": "constant", "mean": 0.5},
    }, "another image's depth is a control, not blind"
    told = (target / "README.md").read_text()
    assert "| point, all | 0.700 [0.600, 0.800] | 50 | 0.300 (majority) |" in told
    assert "| metric | abs_rel | 0.100 [0.050, 0.200] | 0.300 (mean map) |" in told
    listed = json.loads((target / "manifest.json").read_text())
    assert set(listed) == {path.name for path in target.iterdir()} - {"manifest.json"}
    for name, entry in listed.items():
        content = (target / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_what_is_too_large_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "LARGEST_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"MiB are more than the 1 that may ship"):
        ship.ship(run / "final", tmp_path / "scores", tmp_path / "small")
