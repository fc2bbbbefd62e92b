"""What is written comes back; any tool reads it; what is broken is named."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import pickle
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import Alignment, DepthOrigin
from gemvlm.sample import Box, Frame, Point, Provenance, Region, Sample, Turn
from gemvlm.shards import MANIFEST, SampleError, ShardReader, ShardWriter, StoredFrame, files, write_shards
from gemvlm.shards.archive import ROW, SHARD_BYTES, Index
from gemvlm.shards.manifest import FILES
from gemvlm.shards.media import decode_depth, encode_depth

RNG = np.random.default_rng(0)
ORIGIN = DepthOrigin("teacher", "depth-pro", "a1b2", "MIT", Alignment(1.5, -0.1, 0.9, 1200), {"flip_consistency": 0.97})


def depth_map(low: float = 0.3, high: float = 5.0) -> DepthMap:
    values = RNG.uniform(low, high, (12, 16))
    values[RNG.random((12, 16)) < 0.2] = 0
    return DepthMap.from_values(values, source="simulator")


def picture(height: int = 12, width: int = 16) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


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
    shown = tuple(Frame(picture(), depth, view) for _ in range(frames))
    return Sample(id, shown, turns, scene="room " + id, source="test", meta={"seed": 5, "names": ["a", "b"]})


def jpeg(size: tuple[int, int] = (12, 16)) -> tuple[bytes, np.ndarray]:
    buffer = io.BytesIO()
    Image.fromarray(picture(*size)).save(buffer, "JPEG")
    return buffer.getvalue(), np.array(Image.open(buffer))


def assert_same_frame(back: Frame, frame: Frame, depth_error: float = 0.0) -> None:
    assert np.array_equal(back.image, frame.image) and back.encoded == frame.encoded and back.time_s == frame.time_s
    assert (back.view is None) == (frame.view is None) and (back.depth is None) == (frame.depth is None)
    if back.view is not None and frame.view is not None:
        assert back.view.camera == frame.view.camera
        assert np.array_equal(back.view.camera_to_world, frame.view.camera_to_world)
    if back.depth is not None and frame.depth is not None:
        ours, theirs = back.depth, frame.depth
        assert (ours.kind, ours.unit, ours.source, ours.origin) == (
            theirs.kind,
            theirs.unit,
            theirs.source,
            theirs.origin,
        )
        assert ours.values.dtype == np.float32 and np.array_equal(ours.valid, theirs.valid)
        assert np.abs(ours.values - theirs.values)[ours.valid].max(initial=0) <= depth_error


def assert_same(back: Sample, written: Sample, depth_error: float = 0.0) -> None:
    for name in ("id", "turns", "scene", "source", "meta", "provenance", "dialogue", "system"):
        assert getattr(back, name) == getattr(written, name), name
    for frame, original in zip(back.frames, written.frames, strict=True):
        assert_same_frame(frame, original, depth_error)


# ---- every sample that can be made comes back ----

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda text: "<place" not in text)
real = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0.01, 1e4)
fraction = st.floats(0, 1)
points = st.builds(Point, fraction, fraction)
boxes = st.builds(Box, fraction, fraction, fraction, fraction)
regions = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=4).map(
        lambda rows: Region.from_mask(np.array(rows))
    )
)
alignments = st.builds(Alignment, real, real, fraction, st.integers(0, 1 << 40))
origins = st.builds(
    DepthOrigin,
    st.sampled_from(["simulator", "sensor", "stereo", "teacher", "unknown"]),
    words,
    words,
    words,
    st.none() | alignments,
    st.dictionaries(words, real, max_size=3),
)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    kind = draw(st.sampled_from(["text", "choice", "yes_no", "number", "point", "points", "box", "trajectory"]))
    places = tuple(draw(st.lists(points | boxes, max_size=4)))
    options = tuple(draw(st.lists(words, min_size=1, max_size=4, unique=True)))
    markers = "".join(f"<place:{index}>" for index in range(len(places)))
    return Turn(
        question=draw(words) + markers,
        answer=draw(st.sampled_from(options)) if kind == "choice" else draw(words) + markers,
        family=draw(words),
        task=draw(st.sampled_from(["description", "grounding", "reasoning", "planning"])),
        kind=kind,
        places=places,
        options=options if kind == "choice" else (),
        unit=draw(st.none() | words),
        tolerance=draw(st.none() | real),
        region=draw(st.none() | regions),
        regions=tuple(draw(st.lists(regions, max_size=2))),
        cues=draw(st.dictionaries(words, words, max_size=3)),
        subsets=tuple(draw(st.lists(words, max_size=2))),
    )


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    seed = np.random.default_rng(draw(st.integers(0, 3)))
    image, encoded = seed.integers(0, 256, (height, width, 3), dtype=np.uint8), None
    if draw(st.booleans()):
        encoded, image = jpeg((height, width))
    depth = None
    kind = draw(st.sampled_from([None, "metric_z", "ray_distance", "affine_depth", "affine_sqrt_disparity"]))
    if kind is not None:
        metric = kind in ("metric_z", "ray_distance")
        # whole tenths of a millimetre are what a 16-bit map keeps exactly
        values = (seed.integers(0, 65536, (height, width)) * 0.0001).astype(np.float32)
        valid = values > 0 if metric else seed.random((height, width)) < 0.8
        depth = DepthMap(values, valid, kind, "m" if metric else "", draw(words), draw(st.none() | origins))
    view = None
    if draw(st.booleans()):
        camera = Camera(width, height, *(draw(positive) for _ in range(4)))
        view = View(camera, np.array(draw(st.lists(real, min_size=16, max_size=16))).reshape(4, 4))
    return Frame(image, depth, view, encoded, draw(st.none() | real))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | real | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
samples = st.builds(
    Sample,
    id=words,
    frames=st.lists(frames(), max_size=2).map(tuple),
    turns=st.lists(turns(), max_size=3).map(tuple),
    scene=words,
    source=words,
    meta=st.dictionaries(words, json_values, max_size=3),
    provenance=st.builds(Provenance, words, words, words, words),
    dialogue=st.booleans(),
    system=st.none() | words,
)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the type checker of the tests does
@settings(max_examples=20, deadline=None)
@given(st.lists(samples, max_size=3, unique_by=lambda one: one.id))
def test_every_sample_comes_back_exactly_and_copies_are_equal(written: list[Sample]) -> None:
    folder, copied = (f"memory://{uuid.uuid4().hex}/{name}" for name in ("set", "copy"))
    write_shards(written, folder, shard_bytes=4096)
    reader = ShardReader(folder)
    reader.verify()
    assert reader.ids() == [one.id for one in written] and reader.scenes() == [one.scene for one in written]
    for index, one in enumerate(written):
        assert_same(reader[index], one)
    writer = ShardWriter(copied, shard_bytes=4096)
    for index in range(len(reader)):
        writer.copy(reader, index)
    assert writer.finish() == reader.manifest
    for name in files.names(folder):
        assert files.read(f"{folder}/{name}") == files.read(f"{copied}/{name}"), name


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    written = [sample("a", depth_map()), sample("b"), sample("c", depth_map(), frames=3), Sample("d", (), (), "", "")]
    manifest = write_shards(written, tmp_path)
    assert (manifest.samples, manifest.frames, manifest.turns, manifest.images) == (4, 5, 6, 5)
    assert manifest.families == {"point": 3, "relation": 3} and manifest.licences == {"unknown": 4}
    reader = ShardReader(tmp_path)
    reader.verify()
    assert reader.ids() == ["a", "b", "c", "d"] and reader.scenes() == ["room a", "room b", "room c", ""]
    for index in (3, 0, 2, 1):
        assert_same(reader[index], written[index], depth_error=0.5e-4 * 1.001)
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
        (replace(DepthMap.from_values(RNG.normal(size=(12, 16)), "affine_depth", "teacher"), origin=ORIGIN), 0.0),
    ],
    ids=["tenths of a millimetre", "millimetres", "too far for 16 bits", "too near for 16 bits", "without a unit"],
)
def test_depth_comes_back_within_half_of_its_stored_unit(tmp_path: Path, depth: DepthMap, error: float) -> None:
    one = sample("a", depth)
    write_shards([one], tmp_path)
    assert_same(ShardReader(tmp_path)[0], one, error * 1.001)
    assert ShardReader(tmp_path, depth=False)[0].frames[0].depth is None


# ---- pictures ----


def test_a_publishers_file_is_kept_byte_for_byte_and_once(tmp_path: Path) -> None:
    content, image = jpeg()
    shared = Frame(image, encoded=content)
    written = [Sample(name, (shared, replace(shared, time_s=0.5)), (), "", "") for name in "ab"]
    assert write_shards(written, tmp_path).images == 1
    name = hashlib.sha256(content).hexdigest()
    with tarfile.open(tmp_path / "images-00000.tar") as tar:
        (member,) = tar.getmembers()
        assert member.name == f"{name}.jpg" and member.mtime == 0 and tar.extractfile(member).read() == content
    assert_same(ShardReader(tmp_path)[1], written[1])


def test_publishers_bytes_must_show_the_image(tmp_path: Path) -> None:
    content, _ = jpeg()
    writer = ShardWriter(tmp_path)
    with pytest.raises(ValueError, match="sample 'a': frame 0: `encoded` decodes to other pixels"):
        writer.add(Sample("a", (Frame(picture(), encoded=content),), (), "", ""))
    with pytest.raises(ValueError, match="sample 'a': frame 0: `encoded` is not a picture that can be read"):
        writer.add(Sample("a", (Frame(picture(), encoded=b"no picture"),), (), "", ""))
    assert len(writer) == 0 and writer.finish().images == 0


def test_one_picture_with_two_depth_maps_keeps_both(tmp_path: Path) -> None:
    image = picture()
    written = [Sample(name, (Frame(image, depth_map()),), (), "", "") for name in "ab"]
    manifest = write_shards(written, tmp_path)
    assert (manifest.images, manifest.depths) == (1, 2)
    reader = ShardReader(tmp_path)
    for index in (0, 1):
        assert_same(reader[index], written[index], 0.5e-4 * 1.001)
    medias = {frame.media for index in (0, 1) for frame in reader[index].frames if isinstance(frame, StoredFrame)}
    assert len(medias) == 2
    with tarfile.open(tmp_path / "depth-00000.tar") as tar:
        assert {name.split(".")[0] for name in tar.getnames()} == {reader.record(0)["frames"][0]["image"]}


def test_a_changed_frame_forgets_what_it_was_derived_from(tmp_path: Path) -> None:
    write_shards([sample("a")], tmp_path)
    frame = ShardReader(tmp_path)[0].frames[0]
    assert isinstance(frame, StoredFrame) and frame.media
    changed = replace(frame, image=picture())
    assert isinstance(changed, StoredFrame) and changed.media == ""


# ---- reading at random ----


def test_random_access_over_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemvlm.shards.table.ROWS_PER_TABLE", 70)
    monkeypatch.setattr("gemvlm.shards.files.OPEN_FILES", 3)
    write_shards((Sample(f"s{index}", (), (), "", "") for index in range(200)), tmp_path, shard_bytes=8192)
    reader = ShardReader(tmp_path)
    assert reader.manifest.shards["records"] > 20 and reader.manifest.shards["annotations"] == 3
    assert all(reader[index].id == f"s{index}" for index in RNG.permutation(200).tolist())
    assert pickle.loads(pickle.dumps(reader))[150].id == "s150"
    assert reader.ids()[-1] == "s199"
    reader.verify()


@pytest.mark.parametrize("few", [1, 4, 64])
def test_an_index_finds_every_key_and_no_other(few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemvlm.shards.archive.FEW_ROWS", few)
    write_shards([sample(f"s{index}") for index in range(50)], tmp_path)
    index = Index(tmp_path / "images.index")
    assert sorted(index, key=lambda entry: entry.key) == list(index)
    assert all(index.find(entry.key) == entry for entry in index)
    assert all(index.find(hashlib.sha256(bytes([number])).digest()) is None for number in range(50))
    assert index.find(bytes(32)) is None and index.find(b"\xff" * 32) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (23, 31)])
def test_any_tool_reads_the_counts_of_a_depth_map(shape: tuple[int, int]) -> None:
    counts = RNG.integers(1, 65536, shape)
    counts[0, 0] = 65535
    depth = DepthMap.from_values((counts / 1000).astype(np.float32))
    content, form, metres_per_count = encode_depth(depth)
    assert (form, metres_per_count) == ("png16", 0.001)
    with Image.open(io.BytesIO(content)) as image:
        assert (np.array(image) == counts).all()
    values, valid = decode_depth(content, form, metres_per_count)
    assert valid.all() and (values == depth.values).all()


def test_a_cached_reader_decodes_once(tmp_path: Path) -> None:
    write_shards([sample("a")], tmp_path)
    cached, plain = ShardReader(tmp_path, cache=True), ShardReader(tmp_path)
    assert cached[0] is cached[0] and plain[0] is not plain[0]


# ---- other tools ----


def test_the_table_answers_questions_without_our_code(tmp_path: Path) -> None:
    one = replace(sample("a", depth_map()), provenance=Provenance("v1", "train", "CC-BY-4.0", "rows.json:3"))
    write_shards([one, sample("b")], tmp_path)
    table = pq.read_table(tmp_path / "annotations-00000.parquet")
    row = table.to_pylist()[0]
    assert (row["licence"], row["split"], row["version"], row["record"]) == ("CC-BY-4.0", "train", "v1", "rows.json:3")
    assert row["families"] == ["point", "relation"] and row["turns"][1]["options"] == ["mug", "Schüssel"]
    assert row["turns"][0]["cues"] == [("height", "x")] and json.loads(row["meta"]) == one.meta
    assert row["frames"][0]["depth"]["kind"] == "metric_z" and row["frames"][0]["camera"]["fy"] == 21.5
    with tarfile.open(tmp_path / "images-00000.tar") as tar:
        assert row["frames"][0]["image"] + ".png" in tar.getnames()
    with tarfile.open(tmp_path / "records-00000.tar") as tar:
        assert tar.getnames() == ["0000000000.json", "0000000001.json"]


def test_writing_twice_the_same_gives_the_same_bytes(tmp_path: Path) -> None:
    written = [sample("a", depth_map()), sample("b")]
    for name in "ab":
        write_shards(written, tmp_path / name)
    names = [path.name for path in sorted((tmp_path / "a").iterdir())]
    assert len(names) == 9 and not any(name.endswith(".partial") for name in names)
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


# ---- copies ----


def test_a_copy_decodes_nothing_and_may_have_other_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, image = jpeg()
    one = Sample("a", (Frame(image, depth_map(), encoded=content),), sample("x").turns, "", "")
    write_shards([one, sample("b", depth_map())], tmp_path / "set")
    reader = ShardReader(tmp_path / "set")
    for name in ("decode_image", "decode_depth", "encode_image", "encode_depth"):
        for module in ("reader", "writer"):
            monkeypatch.setattr(f"gemvlm.shards.{module}.{name}", None, raising=False)
    writer = ShardWriter(tmp_path / "copy")
    # the tests' type checker would itself decode a random item of the reader
    copy = partial(inspect.unwrap(ShardWriter.copy), writer, reader)
    copy(1)
    copy(0, turns=one.turns[:1])
    with pytest.raises(ValueError, match="sample 'a' comes twice"):
        copy(0)
    assert writer.finish().families == {"point": 2, "relation": 1}
    monkeypatch.undo()
    back = ShardReader(tmp_path / "copy")
    back.verify()
    assert back.ids() == ["b", "a"] and back[1].turns == one.turns[:1] and back[1].frames[0].encoded == content


# ---- bad samples ----


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sample 'a' comes twice"):
        write_shards([sample("a"), sample("a")], tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"meta": {"array": np.zeros(2)}},
        {"meta": {"share": float("nan")}},
        {"scene": "\ud800"},
        {"provenance": Provenance("v", "s", "l", "\udfff")},
    ],
    ids=["array", "nan", "half a character", "half a character in provenance"],
)
def test_what_has_no_plain_form_is_refused_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    writer = ShardWriter(tmp_path)
    writer.add(sample("good"))
    with pytest.raises(ValueError, match="sample 'a': "):
        writer.add(replace(sample("a"), **change))
    writer.add(sample("a"))
    writer.finish()
    ShardReader(tmp_path).verify()
    assert ShardReader(tmp_path).ids() == ["good", "a"]


# ---- interrupted and damaged sets ----


@pytest.mark.parametrize("function", ["write", "fsync", "rename"])
def test_a_kill_at_any_file_operation_leaves_no_finished_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    written = [sample(f"s{index}", depth_map()) for index in range(3)]
    whole = write_shards(written, tmp_path / "whole", shard_bytes=4096)
    original, killed_at = getattr(files, function), 0
    manifest = None
    while manifest is None:
        left = iter(range(killed_at))

        def dying(*arguments: Any, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            original(*arguments)

        monkeypatch.setattr(files, function, dying)
        try:
            manifest = write_shards(written, tmp_path / "set", shard_bytes=4096)
        except KeyboardInterrupt:
            killed_at += 1
            if (
                tmp_path / "set" / MANIFEST
            ).exists():  # killed at the last fsync of all, after the manifest got its name
                manifest = ShardReader(tmp_path / "set").manifest
                continue
            with pytest.raises(ValueError, match=r"manifest.json: missing; .* write them again"):
                ShardReader(tmp_path / "set")
    assert killed_at > 10 and manifest == whole
    names = sorted(path.name for path in (tmp_path / "set").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "whole").iterdir())
    ShardReader(tmp_path / "set").verify()
    with pytest.raises(ValueError, match="already holds shards"):
        write_shards([sample("a")], tmp_path / "set")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def member(reader: ShardReader, archive: str, number: int) -> int:
    """A byte in the middle of what belongs to sample `number`."""
    stored = getattr(reader, f"_{archive}")
    frame = reader.record(number)["frames"][0]
    if archive == "records":
        entry = stored.index[number]
    else:
        entry = stored.index.find(bytes.fromhex(frame["image" if archive == "images" else "media"]))
    return entry.offset + entry.length // 2


@pytest.mark.parametrize(
    ("archive", "file", "field", "id"),
    [
        ("images", "images-00000.tar", "frames[0].image", "b"),
        ("depths", "depth-00000.tar", "frames[0].depth", "b"),
        ("records", "records-00000.tar", "", "#1"),
    ],
)
def test_a_damaged_member_is_named_and_its_neighbours_are_read(
    tmp_path: Path, archive: str, file: str, field: str, id: str
) -> None:
    write_shards([sample(name, depth_map()) for name in "abc"], tmp_path)
    flip(tmp_path / file, member(ShardReader(tmp_path), archive, 1))
    reader = ShardReader(tmp_path)
    assert reader[0].id == "a" and reader[2].id == "c"
    with pytest.raises(SampleError, match=rf"{file} .*CRC-32 differs.*write the shards again") as caught:
        reader[1]
    assert (caught.value.id, caught.value.file, caught.value.field) == (id, str(tmp_path / file), field)
    with pytest.raises(ValueError, match=rf"{file}: missing, or not the bytes"):
        reader.verify()


def test_a_truncated_or_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards([sample("a"), sample("b")], tmp_path)
    path = tmp_path / "images-00000.tar"
    content = path.read_bytes()
    path.write_bytes(content[:600])
    with pytest.raises(
        SampleError, match=r"images-00000.tar: has 600 bytes but a member would end at byte \d+; it is truncated"
    ):
        ShardReader(tmp_path)[1]
    path.unlink()
    with pytest.raises(SampleError, match=r"images-00000.tar.* unreadable"):
        ShardReader(tmp_path)[0]
    path.write_bytes(content)
    (tmp_path / "annotations-00000.parquet").write_bytes(b"PAR1")
    assert ShardReader(tmp_path)[0].id == "a"
    with pytest.raises(ValueError, match=r"annotations-00000.parquet: unreadable"):
        ShardReader(tmp_path).ids()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shard": 7}, "lies in shard 7 of 1"),
        ({"offset": 1 << 60}, "belongs to another index"),
        ({"length": 1 << 60}, "belongs to another index"),
        ({"key": b"\0" * 32}, "knows no member"),
        ({"offset": 0}, "CRC-32 differs"),
    ],
)
def test_an_index_that_lies_is_refused_for_its_sample(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    write_shards([sample("a")], tmp_path)
    path = tmp_path / "images.index"
    content = path.read_bytes()
    entry = Index(path)[0]._replace(**change)
    path.write_bytes(content[: -ROW.size] + ROW.pack(*entry))
    with pytest.raises(SampleError, match=told) as caught:
        ShardReader(tmp_path)[0]
    assert caught.value.id == "a" and caught.value.file
    with pytest.raises(ValueError, match=r"images.index"):
        ShardReader(tmp_path).verify()


def test_a_damaged_index_is_refused_at_once(tmp_path: Path) -> None:
    write_shards([sample("a"), sample("b")], tmp_path)
    path = tmp_path / "records.index"
    content = path.read_bytes()
    for damaged, told in [
        (content[:-1], "the file is truncated"),
        (b"", "empty"),
        (b"x" * 99, "not an index"),
        ((tmp_path / "depth.index").read_bytes(), "0 rows but manifest.json says 2"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=told):
            ShardReader(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"records.index: missing"):
        ShardReader(tmp_path)


def test_a_table_that_says_something_else_is_found(tmp_path: Path) -> None:
    write_shards([sample("a")], tmp_path / "set")
    write_shards([replace(sample("a"), scene="elsewhere")], tmp_path / "other")
    name = "annotations-00000.parquet"
    content = (tmp_path / "other" / name).read_bytes()
    (tmp_path / "set" / name).write_bytes(content)
    listed = json.loads((tmp_path / "set" / FILES).read_text())
    for file in listed:
        if file["file"] == name:
            file["sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "set" / FILES).write_text(json.dumps(listed))
    path = tmp_path / "set" / MANIFEST
    with pytest.raises(ValueError, match=r"files.json: missing, or not the bytes"):
        ShardReader(tmp_path / "set").verify()
    hashed = hashlib.sha256((tmp_path / "set" / FILES).read_bytes()).hexdigest()
    path.write_text(json.dumps({**json.loads(path.read_text()), "files_sha256": hashed}))
    with pytest.raises(ValueError, match=r"annotations-00000.parquet, row 0: not what the record says"):
        ShardReader(tmp_path / "set").verify()


def test_another_schema_is_refused(tmp_path: Path) -> None:
    write_shards([sample("a")], tmp_path)
    path = tmp_path / MANIFEST
    for damaged, told in [({**json.loads(path.read_text()), "schema": 99}, "schema 99"), ({}, "schema"), ([], "not a")]:
        path.write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=told):
            ShardReader(tmp_path)


def test_shards_are_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    manifest = write_shards([sample(f"s{index}") for index in range(40)], tmp_path, shard_bytes=8192)
    shards = [path.stat().st_size for path in tmp_path.glob("*.tar")]
    assert len(shards) == sum(manifest.shards.values()) - 1 and max(shards) <= 8192
    assert SHARD_BYTES >= 64 << 20
