"""A folder of plain images with questions becomes a set with a teacher's depth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.curation import stages
from gemvlm.curation.depth_teacher import FunctionTeacher
from gemvlm.curation.engine import engine_of
from gemvlm.curation.pipeline import curate
from gemvlm.curation.plan import DepthPolicy, Plan, SourceUse
from gemvlm.shards import ShardReader

LENIENT = {"acceptance": {"min_flip": 0.0, "min_valid": 0.0, "min_spread": 1.0}, "required": False}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three pictures, each a different ramp with a bright square, and one question about each."""
    folder = tmp_path / "images"
    folder.mkdir()
    records = []
    for i in range(3):
        picture = np.zeros((96, 96, 3), np.uint8)
        picture[..., i] = np.linspace(0, 255, 96)[:, None]
        picture[20 * i + 10 : 20 * i + 40, 30:60] = 255 - 40 * i
        Image.fromarray(picture).save(folder / f"{i}.png")
        exchange = [{"from": "human", "value": "<image>\nWhat is bright?"}, {"from": "gpt", "value": "A square."}]
        records.append({"id": str(i), "image": f"{i}.png", "conversations": exchange})
    (folder / "questions.json").write_text(json.dumps(records))
    return folder


def plan(folder: Path, depth: DepthPolicy) -> Plan:
    use = SourceUse("mine", "llava", {"licence": "CC-BY-4.0"}, located_by="path", root=str(folder))
    return Plan("mine", "Plain images.", (use,), depth, filters=None)


def test_a_shipped_model_gives_depth(images: Path, tmp_path: Path) -> None:
    from gemvlm.inference.load import shipped_checkpoints

    if "nano" not in shipped_checkpoints():
        pytest.skip("no checkpoint is shipped in this working tree")
    depth = DepthPolicy("gem:nano", {"steps": 2}, LENIENT, required=True)
    made = curate(plan(images, depth), tmp_path / "set", engine_of("local", 1))
    assert made.manifest.samples == 3 and made.manifest.depths == 3, made.funnel
    origin = ShardReader(tmp_path / "set")[0].frames[0].depth.origin
    assert (origin.provenance, origin.licence) == ("teacher", "Apache-2.0") and origin.weights.startswith("sha256:")


def test_what_the_plan_says_of_labels_is_obeyed(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = FunctionTeacher("flat", "v1", "MIT", "metric_z", lambda image, focal_px: np.full(image.shape[:2], 2.0))
    monkeypatch.setattr(stages, "load_teacher", lambda spec, **options: flat)
    stages.teacher_of.cache_clear()
    for labels, kept in ((LENIENT, 3), ({"acceptance": {"min_flip": 0.0}, "required": True}, 0)):
        made = curate(
            plan(images, DepthPolicy("gem:flat", labels=labels)), tmp_path / f"set{kept}", engine_of("local", 1)
        )
        assert made.manifest.samples == kept
    assert made.funnel.rejected["mine", "depth", "flat"] == 3
    with pytest.raises(ValueError, match="least_flip"):
        wrong = DepthPolicy("gem:flat", labels={"acceptance": {"least_flip": 0.0}})
        curate(plan(images, wrong), tmp_path / "wrong", engine_of("local", 1))
    stages.teacher_of.cache_clear()
