"""`docs/own_data.md`: the questions it shows become a set by the lines that it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.shards import ShardReader

PAGE = (Path(__file__).parents[1] / "docs" / "own_data.md").read_text(encoding="utf-8")


def block(language: str, holding: str) -> str:
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if holding in text]
    assert len(found) == 1
    return found[0]


def test_questions_of_ones_own_become_a_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = json.loads(block("json", "conversations"))
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "questions.json").write_text(json.dumps(records))
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture = np.kron(noise, np.ones((32, 32, 1), np.uint8))
    Image.fromarray(picture).save(tmp_path / "data" / "images" / records[0]["image"])
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python", "Plan("), "own_data.md", "exec"), {})
    assert "workshop record out 1 100.0%" in capsys.readouterr().out
    (sample,) = ShardReader(tmp_path / "sets" / "workshop")
    assert [turn.answer for turn in sample.turns] == ["A blue vice."]
    assert sample.frames[0].image.shape == (256, 256, 3)
