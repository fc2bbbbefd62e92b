"""Latents beside a set: made once, joined by media, refused from any other maker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gemvlm.camera import Camera, View
from gemvlm.curation.encode import Codec, cached, encode, weights_hash
from gemvlm.data.collate import Collator
from gemvlm.data.latents import from_member, to_member
from gemvlm.data.loader import BatchStream
from gemvlm.data.quarantine import QuarantineError
from gemvlm.data.targets import DepthTarget, RgbTarget
from gemvlm.data.tokenizer import SpecialIds, train_tokenizer
from gemvlm.depth_map import DepthMap, Encoding
from gemvlm.model.gem import Gem
from gemvlm.model.latents import DcAeLatents, PatchLatents, build_latents
from gemvlm.recipes import get
from gemvlm.runtime import deterministic
from gemvlm.sample import Frame, Sample, Turn
from gemvlm.shards import ShardReader, StampError, files, write_shards

RNG = np.random.default_rng(0)
RECIPE = get("debug")
SIZE = (32, 48)


def make_sample(number: int, depth: bool = True, frames: int = 1, holes: float = 0.2, size: tuple = SIZE) -> Sample:
    shown = []
    for _ in range(frames):
        values = RNG.uniform(0.5, 3, size) * (RNG.random(size) >= holes)
        map_ = DepthMap.from_values(values) if depth else None
        shown.append(Frame(RNG.integers(0, 256, (*size, 3), dtype=np.uint8), map_))
    turn = Turn("What is it?", "a mug", "describe", "description", "text")
    return Sample(f"s{number}", tuple(shown), (turn,), f"room {number}", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    samples = [make_sample(0), make_sample(1, depth=False), make_sample(2, frames=2), make_sample(3, holes=0.0)]
    samples.append(replace(samples[0], id="s0 again"))
    write_shards(samples, tmp_path / "set")
    return tmp_path / "set"


def codec(precision: Any = "float32", kind: Any = "depth", target: tuple = RECIPE.target) -> Codec:
    return Codec.of(RECIPE.model, build_latents(RECIPE.model.latents), kind, target, precision)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", ["depth", "rgb"])
def test_losses_are_the_same_with_and_without_the_cache(folder: Path, kind: str) -> None:
    ours = codec(kind=kind)
    encode(folder, ours, show_progress=False)
    with_depth, without = ShardReader(folder), ShardReader(folder, depth=False)
    tokenizer = train_tokenizer(
        ["What is it?", "a mug", "user assistant"] * 3, RECIPE.vocabulary, RECIPE.coordinates.integers
    )

    def batch(reader: ShardReader, maker: Any):
        collator = Collator(tokenizer, RECIPE.coordinates, RECIPE.image, [maker])
        return collator([reader[index] for index in range(len(reader))], epoch=3)

    made, read = batch(with_depth, ours.maker), batch(without, cached(folder, ours))
    assert len(made.targets) == len(read.targets) == (5 if kind == "depth" else 6)
    assert all(target.latent is not None and target.picture.isnan().all() for target in read.targets)
    assert [target.key for target in made.targets] == [target.key for target in read.targets]
    ids = SpecialIds.of(tokenizer)
    special = {"image_token_id": ids.image_pad, "vision_start_token_id": ids.vision_start}
    special["vision_end_token_id"] = ids.vision_end
    model = replace(RECIPE.model, backbone={**RECIPE.model.backbone, **special})
    with deterministic(0):
        gem = Gem(model).train()
    names = ("text", kind)
    expected, found = gem(made, names), gem(read, names)
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=0)


def test_workers_read_shards_and_latents_by_themselves(folder: Path) -> None:
    """Index and open files are mapped anew in every process, or shared with the one it was forked from."""
    ours = codec()
    encode(folder, ours, show_progress=False)
    tokenizer = train_tokenizer(["What is it?", "a mug"] * 3, RECIPE.vocabulary, RECIPE.coordinates.integers)
    batches = []
    for workers in (0, 2):
        reader = ShardReader(folder, depth=False)
        collator = Collator(tokenizer, RECIPE.coordinates, RECIPE.image, [cached(folder, ours)])
        stream = BatchStream(reader, collator, 2, seed=1, workers=workers)
        batches.append([next(stream) for _ in range(4)])
    for alone, helped in zip(*batches, strict=True):
        assert alone.sample_ids == helped.sample_ids and torch.equal(alone.pixel_values, helped.pixel_values)
        for a, b in zip(alone.targets, helped.targets, strict=True):
            assert torch.equal(a.latent, b.latent) and torch.equal(a.valid, b.valid) and b.picture.isnan().all()


def test_half_precision_costs_less_than_a_thousandth(folder: Path) -> None:
    ours = codec("float16")
    encode(folder, ours, show_progress=False)
    cache = cached(folder, ours)
    frame = ShardReader(folder)[0].frames[0]
    picture, valid = ours.maker.make(frame)
    exact = ours.latents.encode(picture[None])[0]
    nan, mask, latent = cache.make(frame)
    assert latent.dtype == torch.float32 and nan.shape == picture.shape and torch.equal(mask, valid)
    assert not valid.all() and (latent - exact).abs().max() <= 1e-3 * exact.abs().max()


def test_a_set_is_encoded_once_per_picture(folder: Path) -> None:
    out = encode(folder, codec(), show_progress=False)
    assert out == folder / "latents-depth"
    manifest = json.loads((out / "manifest.json").read_text())
    assert sum(file["members"] for file in manifest["files"] if file["file"].endswith(".tar")) == 5
    before = bytes_of(out)
    assert encode(folder, codec(), show_progress=False) == out and bytes_of(out) == before
    ShardReader(folder).verify()


@pytest.mark.parametrize("function", ["write", "fsync", "rename"])
def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setattr("gemvlm.shards.derived.MEMBERS_PER_SHARD", 2)
    options: dict[str, Any] = {"batch_size": 3, "show_progress": False}
    whole = bytes_of(encode(folder, codec(), tmp_path / "whole", **options))
    original, kills = getattr(files, function), 0
    while True:
        left = iter(range(kills))  # each attempt lives one operation longer

        def dying(*arguments: Any, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            original(*arguments)

        monkeypatch.setattr(files, function, dying)
        try:
            encode(folder, codec(), tmp_path / "out", **options)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 3
    there = bytes_of(tmp_path / "out")
    assert {name: there[name] for name in whole} == whole and not [n for n in there if n not in whole]


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (codec("float16"), "precision"),
        (codec(target=(64, 64)), "size"),
        (codec(target=(None, None)), "size, size_rule"),
        (replace(codec(), maker=DepthTarget(Encoding("log", 0.5, 8.0), *RECIPE.target)), "encoding"),
        (replace(codec(), config={**RECIPE.model.latents, "gain": 3.0}), "autoencoder, scaling_factor"),
    ],
    ids=["precision", "size", "rule", "encoding", "autoencoder"],
)
def test_latents_of_another_codec_are_refused_with_both_stamps(folder: Path, other: Codec, field: str) -> None:
    encode(folder, codec(), show_progress=False)
    for attempt in (lambda: cached(folder, other), lambda: encode(folder, other, show_progress=False)):
        with pytest.raises(StampError, match=rf"latents-depth: {field} differ\. Stored: {{.*}}\. Wanted: {{.*}}"):
            attempt()


def test_weights_are_part_of_the_stamp() -> None:
    small = {
        "in_channels": 3, "latent_channels": 4, "attention_head_dim": 8, "scaling_factor": 0.4,
        "encoder_block_types": ["ResBlock"] * 2, "encoder_block_out_channels": [8, 8],
        "encoder_layers_per_block": [1, 1], "encoder_qkv_multiscales": [[], []],
        "decoder_block_types": ["ResBlock"] * 2, "decoder_block_out_channels": [8, 8],
        "decoder_layers_per_block": [1, 1], "decoder_qkv_multiscales": [[], []],
    }  # fmt: skip
    hashes = []
    for seed in (0, 0, 1):
        with deterministic(seed):
            hashes.append(weights_hash(DcAeLatents(small)))
    assert hashes[0] == hashes[1] != hashes[2]
    assert weights_hash(PatchLatents(8, 4, 2)) == weights_hash(PatchLatents(8, 5, 2))  # told apart by `autoencoder`


def test_an_unfinished_or_missing_encoding_is_told(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"stamp.json: missing; nothing was encoded here: run `encode`"):
        cached(folder, codec())
    out = encode(folder, codec(), show_progress=False)
    (out / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"the encoding is unfinished: run `encode` again"):
        cached(folder, codec())


def test_frames_that_are_not_the_stored_ones_are_refused(folder: Path, tmp_path: Path) -> None:
    encode(folder, codec(), show_progress=False)
    cache, frame = cached(folder, codec()), ShardReader(folder)[0].frames[0]
    for changed in (replace(frame, image=frame.image[::-1].copy()), Frame(frame.image, frame.depth)):
        with pytest.raises(ValueError, match="latents fit frames as they are stored"):
            cache.make(changed)
    write_shards([make_sample(9)], tmp_path / "other")
    with pytest.raises(ValueError, match="knows no media"):
        cache.make(ShardReader(tmp_path / "other")[0].frames[0])


def test_a_damaged_latent_is_named(folder: Path) -> None:
    out = encode(folder, codec(), show_progress=False)
    path = out / "members-00000.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    cache = cached(folder, codec())
    with pytest.raises(ValueError, match=r"members-00000.tar: member .*CRC-32 differs"):
        cache.make(ShardReader(folder)[0].frames[0])


def test_bad_frames_are_set_aside_and_too_many_refuse(tmp_path: Path) -> None:
    along = DepthMap.from_values(np.ones(SIZE), "ray_distance")
    image = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    bad = replace(make_sample(7), frames=(Frame(image, along),))  # distances along the ray need a view
    good = replace(make_sample(8), frames=(Frame(image, along, View(Camera.from_fov(48, 32, 60.0), np.eye(4))),))
    write_shards([*map(make_sample, range(4)), bad, good], tmp_path / "set")
    with pytest.raises(QuarantineError, match=r"1 of 6 frames can't be encoded, more than the allowed 1.0%"):
        encode(tmp_path / "set", codec(), show_progress=False)
    with pytest.raises(ValueError, match="unfinished"):
        cached(tmp_path / "set", codec())
    out = encode(tmp_path / "set", codec(), max_bad_share=0.2, show_progress=False)
    (row,) = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert row["id"] == "s7" and row["field"] == "frames[0]" and "give one" in row["reason"]
    reader, cache = ShardReader(tmp_path / "set", depth=False), cached(tmp_path / "set", codec())
    assert cache.make(reader[4].frames[0]) is None and cache.make(reader[5].frames[0]) is not None


def test_a_member_that_overflows_is_refused() -> None:
    valid = torch.ones(8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="store them as float32"):
        to_member(torch.full((1, 1, 1), 1e6), valid, torch.float16)
    picture, mask, latent = from_member(to_member(torch.full((1, 1, 1), 1e6), valid, torch.float32))
    assert picture.shape == (3, 8, 8) and mask.all() and latent.item() == 1e6


def test_the_codec_of_a_shipped_checkpoint() -> None:
    ours = Codec.from_checkpoint("nano", "rgb")
    assert isinstance(ours.maker, RgbTarget) and ours.stamp["kind"] == "rgb" and ours.stamp["encoding"] is None
