"""Out to GEM's and Qwen's layouts: a GEM folder comes back unchanged, equal names never meet, depth stays depth."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from gemvlm.curation.export import depth_counts, export
from gemvlm.curation.source import Rejection, Source
from gemvlm.curation.sources.gem_250k import Gem250K
from gemvlm.curation.sources.llava import LlavaFolder
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Point, Sample, Turn
from gemvlm.shards import ShardReader, write_shards

LAYOUTS = Path(__file__).parent / "layouts"


def layout(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"layout_{name}", LAYOUTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PICTURES = layout("pictures")


def read(source: Source) -> list[Sample]:
    found = [each for part in source.parts() for each in source.read(part)]
    assert not [each for each in found if isinstance(each, Rejection)]
    return [each for each in found if isinstance(each, Sample)]


def files(folder: Path, *suffixes: str) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def counts(folder: Path) -> dict[str, bytes]:
    found = sorted((folder / "depth").rglob("*.png"))
    return {path.relative_to(folder).as_posix(): np.array(Image.open(path)).tobytes() for path in found}


@pytest.mark.parametrize("stored", [False, True])
def test_a_gem_folder_in_and_out_is_unchanged(stored: bool, tmp_path: Path) -> None:
    inside, out = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    samples = read(layout("gem_250k").write(inside, PICTURES))
    if stored:
        write_shards(samples, tmp_path / "shards")
    assert export(ShardReader(tmp_path / "shards") if stored else samples, out, "gem", media=inside) == 6
    before, after = ((folder / "GEM-250K.jsonl").read_text().splitlines() for folder in (inside, out))
    assert [json.loads(line) for line in after] == [json.loads(line) for line in before]
    assert [list(json.loads(line)) for line in after] == [list(json.loads(line)) for line in before]
    assert set(files(out, ".png", ".jpg", ".mp4")) == set(files(inside, ".png", ".jpg", ".mp4"))
    for name, content in files(inside / "images", ".png", ".jpg").items():
        assert (out / "images" / name).read_bytes() == content
    assert files(out, ".mp4") == files(inside, ".mp4")
    assert counts(out) == counts(inside)


def test_without_its_file_a_video_becomes_pictures(tmp_path: Path) -> None:
    inside, out = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    samples = read(layout("gem_250k").write(inside, PICTURES))
    export(samples, out, "gem")
    line = json.loads((out / "GEM-250K.jsonl").read_text().splitlines()[4])
    assert "video" not in line
    assert len(line["image"]) == line["conversations"][0]["value"].count("<image>") == 8
    again = read(Gem250K(out, require_depth=False))[4]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(again.frames, samples[4].frames, strict=True))


def test_equal_basenames_in_different_folders_do_not_meet(tmp_path: Path) -> None:
    """Where the published loader looks for depth, by basename, each picture finds its own."""
    inside, out = tmp_path / "in", tmp_path / "out"
    lines = []
    for index, (place, ending) in enumerate((("a", "png"), ("b", "png"), ("c", "jpg"))):
        PICTURES.picture(inside / place / f"0001.{ending}", index)
        talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": place}]
        lines.append(json.dumps({"image": f"{place}/0001.{ending}", "conversations": talk}))
    (inside / "all.jsonl").write_text("\n".join(lines))
    samples = []
    for index, sample in enumerate(read(LlavaFolder(inside))):
        depth = DepthMap.from_values(np.full((48, 64), 1.0 + index))
        samples.append(Sample(sample.id, (Frame(sample.frames[0].image, depth, encoded=sample.frames[0].encoded),),
                              sample.turns, sample.scene, sample.source, sample.meta))  # fmt: skip
    export(samples, out, "gem")
    for index, line in enumerate((out / "GEM-250K.jsonl").read_text().splitlines()):
        name = json.loads(line)["image"]
        assert np.array_equal(np.array(Image.open(out / name)), samples[index].frames[0].image)
        assert (np.array(Image.open(out / "depth" / Path(name).name)) == 1000 * (1 + index)).all()
    assert len(list((out / "depth").iterdir())) == len(list((out / "images").iterdir())) == 3


def test_a_picture_that_its_frame_has_not_kept_is_copied(tmp_path: Path) -> None:
    inside, out = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    source = layout("gem_250k").write(inside, PICTURES)
    clear = Image.fromarray(PICTURES.pixels(4)).convert("RGBA")
    clear.putpixel((0, 0), (9, 9, 9, 0))
    clear.save(inside / "images/desk.png")
    samples = read(source)
    assert samples[0].frames[0].encoded is None
    export(samples, out, "gem", media=inside)
    assert (out / "images/desk.png").read_bytes() == (inside / "images/desk.png").read_bytes()


def test_qwen_lines_hold_thousandths_and_a_tag_for_each_picture(tmp_path: Path) -> None:
    frames = tuple(Frame(PICTURES.pixels(seed)) for seed in (1, 2))
    turns = (
        Turn("Where is the mug?", "at <place:0>", "f", "grounding", "point", (Point(0.25, 0.5),)),
        Turn("Is it red?", "yes", "f", "reasoning", "yes_no"),
    )
    export([Sample("s", frames, turns, "s", "test", system="Be brief.")], tmp_path / "out", "qwen")
    line = json.loads((tmp_path / "out/annotations.jsonl").read_text())
    assert line["conversations"] == [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "<image><image>\nWhere is the mug?"},
        {"from": "gpt", "value": "at (250, 500)"},
        {"from": "human", "value": "Is it red?"},
        {"from": "gpt", "value": "yes"},
    ]
    assert len(line["image"]) == 2
    (again,) = read(LlavaFolder(tmp_path / "out"))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(again.frames, frames, strict=True))


def test_depth_counts_are_proportional_to_depth() -> None:
    near_far = np.array([[0.5, 2.0], [60.0, 0.0]], np.float32)
    assert depth_counts(DepthMap.from_values(near_far)).tolist() == [[500, 2000], [60000, 0]]
    far = depth_counts(DepthMap.from_values(near_far * 2))
    assert far[1, 1] == 0
    assert far[0, 1] / far[0, 0] == pytest.approx(4, rel=0.01)
    valid = near_far > 0
    disparity = DepthMap(np.where(valid, 1 / np.where(valid, near_far, 1), 0), valid, "affine_disparity", "", "da2")
    inverted = depth_counts(disparity)
    assert inverted[0, 1] / inverted[0, 0] == pytest.approx(4, rel=0.01)
    with pytest.raises(ValueError, match="along the ray"):
        depth_counts(DepthMap.from_values(near_far, "ray_distance"))


def test_a_video_becomes_a_lerobot_episode(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from gemvlm.data.episodes import LeRobotFolder

    frames = tuple(Frame(PICTURES.pixels(index), time_s=index / 5) for index in range(6))
    turn = Turn("What next?", "pour", "f", "planning", "text")
    sample = Sample("s", frames, (turn,), "s", "test", {"task": "pour the milk"})
    assert export([sample], tmp_path / "out", "lerobot") == 1
    (episode,) = LeRobotFolder(tmp_path / "out")
    assert (episode.instruction, episode.length, episode.fps) == ("pour the milk", 6, 5.0)
    with pytest.raises(ValueError, match="no video at a constant rate"):
        export([Sample("s", frames[:1], (turn,), "s", "test")], tmp_path / "other", "lerobot")


def test_export_refuses_a_used_folder_and_an_unknown_layout(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ValueError, match="not empty"):
        export([], tmp_path, "gem")
