"""Bad input is answered with the file, the field and the remedy: as ValueError in Python, as one line and exit code 2
on the command line."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gemvlm
from gemvlm import recipes
from gemvlm.__main__ import main
from gemvlm.curation.sources.rgbd_folder import RgbdFolder
from gemvlm.data.quarantine import QuarantineError, quarantined
from gemvlm.depth_map import DepthMap
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.run import MAX_BAD_SHARE, train_recipe
from gemvlm.sample import Frame, Sample, Turn
from gemvlm.shards import ShardReader, media, write_shards

SIDE = 48
IMAGE = np.zeros((SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def places(debug_run: Path, tmp_path: Path) -> dict[str, str]:
    """Names for what the cases below speak of."""
    Image.fromarray(IMAGE).save(tmp_path / "good.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "words.png").write_text("not a picture")
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)).save(tmp_path / "depth.png")
    model = debug_run / "final"
    (tmp_path / "empty").mkdir()
    shutil.copytree(model, tmp_path / "headless", ignore=shutil.ignore_patterns("gem.json"))
    shutil.copytree(model, tmp_path / "damaged")
    (tmp_path / "damaged" / "gem.json").write_text("{")
    shutil.copytree(model, tmp_path / "cut", ignore=shutil.ignore_patterns("model.safetensors"))
    (tmp_path / "cut" / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    shutil.copytree(model, tmp_path / "other")
    card = json.loads((model / "gem.json").read_text())
    card["model"]["backbone"]["text_config"]["num_hidden_layers"] = 1
    (tmp_path / "other" / "gem.json").write_text(json.dumps(card))
    return {"model": str(model), "run": str(debug_run), "here": str(tmp_path)}


BAD_IMAGES = [
    ("torn.png", "the image is damaged", "write the file again"),
    ("words.png", "not an image that can be read", "give a PNG, JPEG or WebP file"),
    ("nothing.png", "no such image file", "check the name"),
    ("depth.png", "mode I;16 is not a colour picture", "give the 8-bit RGB image"),
]
BAD_MODELS = [
    ("{here}/nowhere", "neither a folder nor a shipped checkpoint", "give a folder written by `gemvlm train`"),
    ("{here}/empty", "the folder is empty", "copy the whole checkpoint folder again"),
    ("{run}", "this is the folder of a run", "debug/final"),
    ("{here}/headless", "gem.json missing", "copy the whole checkpoint folder again"),
    ("{here}/damaged", "gem.json: not JSON", "copy it again"),
    ("{here}/cut", "model.safetensors: not a readable safetensors file", "copy it again"),
    ("{here}/other", "unexpected (model.language_model.layers.1.", "give a checkpoint of this configuration"),
]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("gemvlm: ") and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(("name", "fault", "remedy"), BAD_IMAGES)
def test_a_bad_image_is_named_with_its_fault_and_a_remedy(
    name: str, fault: str, remedy: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = f"{places['here']}/{name}", places["model"]
    pipeline = gemvlm.load(model, device="cpu")
    told = []
    for use in (lambda: pipeline.ask(path, "What is this?"), lambda: pipeline.depth(path)):
        with pytest.raises(ValueError) as error:
            use()
        told.append(str(error.value))
    told.append(refused(capsys, "ask", model, path, "What is this?", "--device", "cpu"))
    told.append(refused(capsys, "depth", model, path, "--out", f"{places['here']}/out", "--device", "cpu"))
    for text in told:
        assert path in text and fault in text and remedy in text
    assert not Path(places["here"], "out").exists()


@pytest.mark.parametrize(("model", "fault", "remedy"), BAD_MODELS)
def test_a_wrong_checkpoint_folder_is_named_with_what_is_there(
    model: str, fault: str, remedy: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.format(**places)
    with pytest.raises(ValueError) as error:
        gemvlm.load(folder, device="cpu")
    image = f"{places['here']}/good.png"
    for text in (str(error.value), refused(capsys, "ask", folder, image, "What is this?", "--device", "cpu")):
        assert folder in text and fault in text and remedy in text


def test_a_question_with_another_number_of_placeholders_is_refused(
    places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    image, question = f"{places['here']}/good.png", "Is <image> nearer than <image>?"
    with pytest.raises(ValueError) as error:
        gemvlm.load(places["model"], device="cpu").ask(image, question)
    for text in (str(error.value), refused(capsys, "ask", places["model"], image, question, "--device", "cpu")):
        assert "2 <image>" in text and "1 " in text


def test_an_unknown_recipe_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for call in (lambda: recipes.get("gem_giga"), lambda: train_recipe("gem_giga", tmp_path)):
        with pytest.raises(ValueError, match=r"unknown recipe 'gem_giga'; there are .*debug"):
            call()
    assert "unknown recipe 'gem_giga'; there are " in refused(capsys, "train", "gem_giga", "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((SIDE, SIDE), np.nan, np.float32), r"'lidar.*2304 valid pixels 2304 are NaN.*mark them invalid"),
        (np.full((SIDE, SIDE), -1.0, np.float32), r"'lidar.*2304 are zero or negative.*repair the source"),
        (np.ones((8, 6), np.float32), r"depth is \(8, 6\) but the image is \(48, 48\).*register the depth"),
    ],
)
def test_bad_depth_never_becomes_a_frame(values: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Frame(IMAGE, DepthMap.from_values(values, source="lidar"))


def test_depth_files_of_another_size_are_named_with_their_image(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "desk.png")
    Image.fromarray(np.full((8, 6), 900, np.uint16)).save(tmp_path / "desk.depth.png")
    with pytest.raises(
        ValueError, match=r"desk\.depth\.png: depth is \(8, 6\) but desk\.png is \(48, 48\).*registration"
    ):
        RgbdFolder(tmp_path)[0]


def make_sample(number: int, question: str = "What colour is it?") -> Sample:
    turn = Turn(question, "red", "colour", "reasoning", "text")
    described = Turn("Describe the scene.", "A red mug.", "describe", "description", "text")
    depth = DepthMap.from_values(np.full((SIDE, SIDE), 0.5 + 0.01 * (number % 50), np.float32))
    return Sample(f"s{number}", (Frame(IMAGE, depth),), (turn, described), f"scene-{number}", "test")


def make_data(folder: Path, good: int, bad: int) -> Path:
    """A folder that recipe `debug` takes for its own, with samples whose placeholders do not match."""
    samples = [make_sample(number) for number in range(good)]
    samples += [make_sample(good + number, "Is <image> like <image>?") for number in range(bad)]
    write_shards(samples, folder)
    (folder / "settings.json").write_text(json.dumps(asdict(DEBUG.data)))
    return folder


def test_training_refuses_to_start_when_too_many_samples_are_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = make_data(tmp_path / "data", 48, 2), tmp_path / "run"
    told = rf"2 of 50 samples are bad, more than the allowed {MAX_BAD_SHARE:.1%}; .*quarantine\.jsonl says why"
    with pytest.raises(QuarantineError, match=told):
        train_recipe("debug", out, data=data, device="cpu")
    assert "2 of 50" in refused(capsys, "train", "debug", "--out", str(out), "--data", str(data), "--device", "cpu")
    reasons = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [(reason["id"], reason["field"]) for reason in reasons] == [("s48", "turns"), ("s49", "turns")]
    assert all("2 <image> but the sample has 1" in reason["reason"] for reason in reasons)
    assert [path.name for path in out.iterdir()] == ["quarantine.jsonl"]


def test_few_bad_samples_are_set_aside_and_the_rest_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = make_data(tmp_path / "data", 100, 1), tmp_path / "run"
    short = replace(DEBUG, stages=(replace(DEBUG.stages[1], steps=2),))
    monkeypatch.setattr("gemvlm.recipes.run.get", lambda name: short)
    monkeypatch.setattr("gemvlm.recipes.run.PREVIEWS", 1)
    assert train_recipe("debug", out, data=data, device="cpu")
    assert [json.loads(line)["id"] for line in (out / "quarantine.jsonl").read_text().splitlines()] == ["s100"]


def test_a_curated_set_is_trained_on_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = make_data(tmp_path / "data", 40, 0), tmp_path / "run"
    (data / "settings.json").unlink()
    short = replace(DEBUG, stages=(replace(DEBUG.stages[1], steps=2),))
    monkeypatch.setattr("gemvlm.recipes.run.get", lambda name: short)
    monkeypatch.setattr("gemvlm.recipes.run.PREVIEWS", 1)
    with pytest.raises(ValueError, match=r"neither a set of `gemvlm curate` nor samples of this recipe"):
        train_recipe("debug", out, data=data, device="cpu")
    (data / "card.json").write_text("{}")
    assert train_recipe("debug", out, data=data, device="cpu")
    assert (out / "final").is_dir()


def _cut_image(content: bytes) -> bytes:
    return content[:50]


def _nan_depth(content: bytes) -> bytes:
    with np.load(io.BytesIO(content)) as arrays:
        values, valid = arrays["values"].copy(), arrays["valid"]
    values[3, 3] = np.nan
    buffer = io.BytesIO()
    np.savez_compressed(buffer, values=values, valid=valid)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "change", "file", "field", "told"),
    [
        ("encode_image", _cut_image, "images-00000.tar", "frames[0].image", "truncated|cannot identify"),
        ("encode_depth", _nan_depth, "depth-00000.tar", "frames[0].depth", "1 are NaN or infinite"),
    ],
    ids=["image", "depth"],
)
def test_what_is_rotten_inside_a_shard_is_quarantined_with_id_and_file(
    make: str, change: Callable[[bytes], bytes], file: str, field: str, told: str, tmp_path: Path
) -> None:
    """Depth without a unit is kept as float32, so that NaN can get in there."""
    disparity = DepthMap.from_values(np.ones((SIDE, SIDE), np.float32), "affine_disparity")
    images = [np.full((SIDE, SIDE, 3), number, np.uint8) for number in range(4)]
    samples = [replace(make_sample(n), frames=(replace(Frame(images[n]), depth=disparity),)) for n in range(4)]
    original = getattr(media, make)
    rotten = iter([False, False, True, False])

    def spoilt(*arguments: Any) -> Any:
        made = original(*arguments)
        if not next(rotten):
            return made
        return change(made) if isinstance(made, bytes) else (change(made[0]), *made[1:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"gemvlm.shards.writer.{make}", spoilt)
        write_shards(samples, tmp_path)
    # not through `Usable`: the type checker of the tests would itself read a random item of the reader
    every = map(ShardReader(tmp_path).__getitem__, range(4))
    assert [sample.id for sample in quarantined(every, tmp_path, max_bad_share=0.5)] == ["s0", "s1", "s3"]
    (row,) = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert (row["id"], row["file"], row["field"]) == ("s2", str(tmp_path / file), field)
    assert "write the shards again" in row["reason"]
    reason = row["reason"]
    assert re.search(told, reason)
