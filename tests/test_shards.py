"""What is written comes back; what is broken is named by file and row."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Box, Frame, Point, Region, Sample, Turn
from gemvlm.shards import ShardReader, write_shards

RNG = np.random.default_rng(0)


def depth_map(low: float = 0.3, high: float = 5.0) -> DepthMap:
    values = RNG.uniform(low, high, (12, 16))
    values[RNG.random((12, 16)) < 0.2] = 0
    return DepthMap.from_values(values, source="simulator")


def sample(id: str, depth: DepthMap | None = None, frames: int = 1) -> Sample:
    pose = np.eye(4)
    pose[:3, 3] = RNG.random(3)
    view = View(Camera(16, 12, 20.0, 21.5, 8.0, 6.1), pose)
    turns = (
        Turn("Where is <place:0>?", "<place:1>", "point", "grounding", "point",
             places=(Box(0.0, 0.1, 0.5, 1.0), Point(1 / 3, 0.7)),
             region=Region.from_mask(RNG.random((12, 16)) < 0.3), cues={"height": "x"}, subsets=("hard",)),
        Turn("Which?", "mug", "relation", "reasoning", "choice", options=("mug", "Schüssel"), tolerance=0.1, unit="m"),
    )  # fmt: skip
    shown = tuple(Frame(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8), depth, view) for _ in range(frames))
    return Sample(id, shown, turns, scene="room " + id, source="test", meta={"seed": 5, "names": ["a", "b"]})


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    written = [sample("a", depth_map()), sample("b"), sample("c", depth_map(), frames=3), Sample("d", (), (), "", "")]
    manifest = write_shards(written, tmp_path, samples_per_shard=2)
    assert (manifest.samples, manifest.frames, manifest.turns, len(manifest.shards)) == (4, 5, 6, 2)
    assert manifest.families == {"point": 3, "relation": 3}
    reader = ShardReader(tmp_path)
    reader.verify()
    assert reader.ids() == ["a", "b", "c", "d"] and reader.scenes() == ["room a", "room b", "room c", ""]
    for index in (3, 0, 2, 1):
        ours, theirs = reader[index], written[index]
        assert (ours.id, ours.scene, ours.source, ours.meta) == (theirs.id, theirs.scene, theirs.source, theirs.meta)
        assert ours.turns == theirs.turns
        for frame, original in zip(ours.frames, theirs.frames, strict=True):
            assert np.array_equal(frame.image, original.image)
            assert frame.view is not None and original.view is not None
            assert frame.view.camera == original.view.camera
            assert np.array_equal(frame.view.camera_to_world, original.view.camera_to_world)
            assert (frame.depth is None) == (original.depth is None)
    assert reader[-1].id == "d"
    with pytest.raises(IndexError):
        reader[4]


@pytest.mark.parametrize(
    ("depth", "error"),
    [
        (depth_map(0.3, 5.0), 0.5e-4),
        (depth_map(3.0, 60.0), 0.5e-3),
        (depth_map(3.0, 600.0), 0.0),
        (depth_map(1e-5, 1e-3), 0.0),
        (DepthMap.from_values(RNG.normal(size=(12, 16)), "affine_depth", "teacher"), 0.0),
    ],
    ids=["tenths of a millimetre", "millimetres", "too far for 16 bits", "too near for 16 bits", "without a unit"],
)
def test_depth_comes_back_within_half_of_its_stored_unit(tmp_path: Path, depth: DepthMap, error: float) -> None:
    write_shards([sample("a", depth)], tmp_path)
    back = ShardReader(tmp_path)[0].frames[0].depth
    assert back is not None
    assert (back.kind, back.unit, back.source) == (depth.kind, depth.unit, depth.source)
    assert np.array_equal(back.valid, depth.valid)
    assert np.abs(back.values - depth.values)[depth.valid].max() <= error * 1.001
    assert back.values.dtype == np.float32


def test_an_original_file_is_kept_byte_for_byte(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    one = Sample("a", (Frame(np.array(Image.open(buffer))),), (), "", "")
    write_shards([one], tmp_path / "a", image_bytes=lambda sample, index: jpeg)
    assert np.array_equal(ShardReader(tmp_path / "a")[0].frames[0].image, one.frames[0].image)
    row = pq.read_table(tmp_path / "a/shard-00000.parquet").to_pylist()[0]
    assert row["frames"][0]["image"] == jpeg
    with pytest.raises(ValueError, match="sample 'a', frame 0: the original file decodes to other pixels"):
        write_shards([sample("a")], tmp_path / "b", image_bytes=lambda sample, index: jpeg)


def test_random_access_over_many_row_groups(tmp_path: Path) -> None:
    write_shards((Sample(f"s{index}", (), (), "", "") for index in range(200)), tmp_path, samples_per_shard=70)
    reader = ShardReader(tmp_path)
    assert all(reader[index].id == f"s{index}" for index in RNG.permutation(200).tolist())
    assert pickle.loads(pickle.dumps(reader))[150].id == "s150"


def test_a_cached_reader_decodes_once(tmp_path: Path) -> None:
    write_shards([sample("a")], tmp_path)
    cached, plain = ShardReader(tmp_path, cache=True), ShardReader(tmp_path)
    assert cached[0] is cached[0] and plain[0] is not plain[0]


def test_writing_twice_the_same_gives_the_same_bytes(tmp_path: Path) -> None:
    one = sample("a", depth_map())
    first, second = (write_shards([one], tmp_path / name) for name in "ab")
    assert first.shards[0].sha256 == second.shards[0].sha256


def test_an_interrupted_write_is_not_mistaken_for_a_finished_one(tmp_path: Path) -> None:
    def interrupted():
        yield from (sample("a"), sample("b"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(interrupted(), tmp_path, samples_per_shard=1)
    assert (tmp_path / "shard-00000.parquet").exists() and not list(tmp_path.glob("*.partial"))
    with pytest.raises(ValueError, match=r"manifest.json: missing; .* write them again"):
        ShardReader(tmp_path)
    assert write_shards([sample("a")], tmp_path).samples == 1
    with pytest.raises(ValueError, match="already holds shards"):
        write_shards([sample("a")], tmp_path)


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sample 'a' comes twice"):
        write_shards([sample("a"), sample("a")], tmp_path)


def test_what_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sample 'a': turns or meta are not JSON"):
        write_shards([Sample("a", (), (), "", "", meta={"array": np.zeros(2)})], tmp_path)


def _damage(folder: Path, change) -> None:
    """Rewrites the rows of the only shard."""
    import pyarrow as pa

    path = folder / "shard-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[1]["frames"][0].update(image=rows[1]["frames"][0]["image"][:40]),
        lambda rows: rows[1]["frames"][0].update(depth=b"not a picture"),
        lambda rows: rows[1].update(turns="[{]"),
        lambda rows: rows[1]["frames"][0].update(depth=rows[2]["frames"][0]["depth"]),
    ],
    ids=["torn image", "broken depth", "broken turns", "depth of another size"],
)
def test_a_broken_row_is_named(tmp_path: Path, change) -> None:
    small = Sample("small", (Frame(np.zeros((2, 2, 3), np.uint8), DepthMap.from_values(np.ones((2, 2)))),), (), "", "")
    write_shards([sample("a", depth_map()), sample("b", depth_map()), small], tmp_path)
    _damage(tmp_path, change)
    reader = ShardReader(tmp_path)
    assert reader[0].id == "a"
    with pytest.raises(ValueError, match=r"shard-00000.parquet, row 1 \(sample 'b'\)"):
        reader[1]
    with pytest.raises(ValueError, match=r"shard-00000.parquet: missing, or not the bytes"):
        reader.verify()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    write_shards([sample("a"), sample("b")], tmp_path)
    path = tmp_path / "shard-00000.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"shard-00000.parquet: unreadable"):
        ShardReader(tmp_path)[0]
    path.unlink()
    with pytest.raises(ValueError, match=r"shard-00000.parquet: unreadable"):
        ShardReader(tmp_path).ids()
    path.write_bytes(content)
    _damage(tmp_path, lambda rows: rows.pop())
    with pytest.raises(ValueError, match=r"shard-00000.parquet: 1 rows but manifest.json says 2"):
        ShardReader(tmp_path)[0]


def test_another_schema_is_refused(tmp_path: Path) -> None:
    write_shards([sample("a")], tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(ValueError, match="schema 99"):
        ShardReader(tmp_path)
