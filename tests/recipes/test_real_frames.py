"""Adaptation to one room, with a model of debug size on a made-up room and on real frames."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.__main__ import main
from gemvlm.curation.sources.rgbd_folder import KINECT_7SCENES, RgbdFolder
from gemvlm.data.frames import ImageConfig
from gemvlm.data.tokenizer import SpecialIds, train_tokenizer
from gemvlm.inference import load
from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.recipes import real_frames
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.real_frames import ROOM, adapt, make_room
from gemvlm.runtime import deterministic
from gemvlm.training.checkpoint import save_checkpoint

SHARED = Path(__file__).parents[2] / "../shared/rgbd-7scenes"
UP_7SCENES = (0.0089, -0.904, -0.427)

WIDTH, HEIGHT, FOCAL = 64, 48, 56.0
SMALL = replace(
    ROOM,
    test_frames=2,
    views_per_frame=2,
    unturned_per_frame=1,
    turns_per_view=6,
    turns_per_test_frame=6,
    stage=replace(ROOM.stage, steps=6, batch_size=4, turns_per_sample=2),
    precision="float32",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The debug recipe's model before any training."""
    words = ["Which is closer to the camera: A (100, 200) or B (300, 400)?", "What is the depth of (10, 20) in metres?"]
    tokenizer = train_tokenizer(words, DEBUG.vocabulary, DEBUG.coordinates.integers)
    ids = SpecialIds.of(tokenizer)
    special = {
        "image_token_id": ids.image_pad,
        "vision_start_token_id": ids.vision_start,
        "vision_end_token_id": ids.vision_end,
    }
    model = replace(DEBUG.model, backbone={**DEBUG.model.backbone, **special})
    card = CheckpointCard(
        model=model,
        coordinates=asdict(DEBUG.coordinates),
        image=asdict(DEBUG.image),
        target={"height": 48, "width": 48},
        recipe="debug",
        stage="",
        step=0,
        versions={},
        trained_groups=(),
    )
    folder = tmp_path_factory.mktemp("adapt") / "debug"
    with deterministic(0):
        save_checkpoint(folder, Gem(model), tokenizer, card)
    return folder


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Five frames of posters at many depths, coloured by depth, from a camera that walks sideways."""
    folder = tmp_path / "room"
    folder.mkdir()
    np.savetxt(folder / "camera-intrinsics.txt", [[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]])
    posters = np.random.default_rng(0).uniform(0.8, 3.9, (3, 8))
    for number in range(5):
        z = np.kron(posters[:, number : number + 4], np.ones((16, 16)))
        colour = np.stack([255 - 60 * z, 20 + 50 * z, 64 * z % 256], axis=-1).astype(np.uint8)
        Image.fromarray(colour).save(folder / f"frame-{number:03d}.color.png")
        Image.fromarray((1000 * z).astype(np.uint16)).save(folder / f"frame-{number:03d}.depth.png")
        pose = np.eye(4)
        pose[0, 3] = 0.1 * number
        np.savetxt(folder / f"frame-{number:03d}.pose.txt", pose)
    return folder


def test_adapts_and_reports_beside_every_baseline(checkpoint: Path, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    page = adapt(checkpoint, frames, out, recipe=SMALL, device="cpu")
    assert page == out / "report.html" and "room" in page.read_text()
    scores = json.loads((out / "scores.json").read_text())
    copies = {"nearest in time", "nearest in pose", "nearest in picture"}
    for reading in ("metric", "aligned"):
        methods = scores["depth"][reading]["all"]
        assert {"model", "mean map", "constant", "before adaptation", *copies} <= set(methods)
        assert all(np.isfinite(values["abs_rel"]).all() for values in methods.values())
        assert methods["model"] != methods["before adaptation"]
    assert scores["depth"]["images"] == SMALL.test_frames
    assert {row["family"] for row in scores["questions"]} >= {"depth_closer", "depth_metres"}
    assert all("before adaptation" in row["baselines"] for row in scores["questions"])
    assert Image.open(out / "panel.png").height > 100
    model = load(out / "run/final")
    assert model.card.recipe == "debug adapted to room" and model.card.step == 6
    assert model.card.target == {"height": 48, "width": 64}
    assert model.depth(np.zeros((HEIGHT, WIDTH, 3), np.uint8), steps=1, as_image=False).depth.values.shape == (48, 64)


def test_goes_on_where_it_stopped_and_never_with_other_settings(
    checkpoint: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_frames, "evaluate_adaptation", lambda before, after, room, out: out / "page")
    out = tmp_path / "out"
    assert adapt(checkpoint, frames, out, recipe=SMALL, minutes=0.0, device="cpu") is None
    assert list((out / "run").glob("step-*")) and not (out / "run/final").exists()
    with pytest.raises(ValueError, match="choose another folder"):
        adapt(checkpoint, frames, out, recipe=replace(SMALL, seed=1), device="cpu")
    assert adapt(checkpoint, frames, out, recipe=SMALL, device="cpu") == out / "page"
    assert load(out / "run/final").card.step == 6


def test_the_test_is_the_end_of_the_sequence_and_no_view_comes_from_it(frames: Path) -> None:
    image = ImageConfig(8, 2, 2, 48 * 64, 48 * 64)
    room = make_room(RgbdFolder(frames), image, SMALL)
    assert [sample.scene for sample in room.test] == ["room/frame-003", "room/frame-004"]
    assert [sample.scene for sample in room.train] == [f"room/frame-{number:03d}" for number in range(3)]
    assert {sample.scene for sample in room.views} == {sample.scene for sample in room.train}
    assert len(room.views) == 3 * SMALL.views_per_frame == len({sample.id for sample in room.views})
    assert {sample.frames[0].image.shape for sample in (*room.views, *room.test)} == {(48, 64, 3)}
    own, turned = room.views[:2]
    np.testing.assert_array_equal(own.frames[0].image, room.train[0].frames[0].image)
    assert not np.array_equal(turned.frames[0].image, own.frames[0].image)
    again = make_room(RgbdFolder(frames), image, SMALL)
    for one, other in zip(room.views, again.views, strict=True):
        assert one.turns == other.turns
        np.testing.assert_array_equal(one.frames[0].image, other.frames[0].image)
    chosen = make_room(RgbdFolder(frames), image, SMALL, first=4)
    assert [sample.scene for sample in chosen.test] == ["room/frame-002", "room/frame-003"]


def test_frames_that_cannot_teach_are_refused_by_name(frames: Path) -> None:
    image = ImageConfig(8, 2, 2, 48 * 64, 48 * 64)
    with pytest.raises(ValueError, match="5 frames can't be parted into some to learn from and 5"):
        make_room(RgbdFolder(frames), image, replace(SMALL, test_frames=5))
    (frames / "frame-001.depth.png").unlink()
    with pytest.raises(ValueError, match="frame-001 has no depth"):
        make_room(RgbdFolder(frames), image, SMALL)
    (frames / "camera-intrinsics.txt").unlink()
    with pytest.raises(ValueError, match="the camera is unknown"):
        make_room(RgbdFolder(frames), image, SMALL)


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path, checkpoint: Path) -> None:
    assert main(["adapt", str(checkpoint), str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real frames are not here")
def test_real_frames_give_views_and_questions_of_every_family() -> None:
    recipe = replace(SMALL, test_frames=1, views_per_frame=2, turns_per_view=24, turns_per_test_frame=60)
    image = ImageConfig(8, 2, 2, 96 * 128, 96 * 128)
    room = make_room(RgbdFolder(SHARED, KINECT_7SCENES), image, recipe, UP_7SCENES, first=4)
    assert [sample.frames[0].image.shape for sample in room.test] == [(96, 128, 3)]
    assert len(room.views) == 6 and all(len(sample.turns) == 24 for sample in room.views)
    families = {turn.family for sample in (*room.views, *room.test) for turn in sample.turns}
    assert len(families) >= 5  # what is nearest borders on pixels without depth in nearly all of these frames
    for sample in room.views:
        depth = sample.frames[0].depth
        assert depth is not None
        assert depth.values[depth.valid].min() > 0.7 and depth.values[depth.valid].max() < 4.5
