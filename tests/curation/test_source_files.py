"""Folders, pictures, depth, videos and record files as sources read them: within bounds, and as they are stored."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.curation.sources import records
from gemvlm.curation.sources.folder import (
    MILLIMETRE_PNG,
    DepthFormat,
    inside,
    read_depth,
    read_frame,
    resolve_folder,
)
from gemvlm.curation.sources.records import RecordError, imported, json_parts, json_records, parquet_parts
from gemvlm.curation.sources.video import VideoSampling, read_frame_folder, read_video
from gemvlm.shards.media import decode_image

_SPEC = importlib.util.spec_from_file_location("layout_pictures", Path(__file__).parent / "layouts" / "pictures.py")
assert _SPEC is not None
assert _SPEC.loader is not None
PICTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(PICTURES)


def written(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def reason(call, *args, **options) -> str:
    with pytest.raises(RecordError) as error:
        call(*args, **options)
    return error.value.reason


RGB = Image.fromarray(PICTURES.pixels(1))
HALF_CLEAR = RGB.copy()
HALF_CLEAR.putalpha(Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))))


def test_a_folder_is_local_or_a_pinned_hub_id(tmp_path: Path) -> None:
    assert resolve_folder(tmp_path) == tmp_path
    with pytest.raises(ValueError, match="no such folder; check the name"):
        resolve_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="give a revision"):
        resolve_folder("owner/name")


def test_a_hub_snapshot_may_link_to_its_blobs(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    blob = tmp_path / "datasets--owner--name" / "blobs" / "1f"
    blob.parent.mkdir()
    blob.write_bytes(b"x")
    (snapshot / "a.png").symlink_to(blob)
    assert inside(snapshot, "a.png") == snapshot / "a.png"
    (snapshot / "b.png").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_bytes(b"x")
    assert reason(inside, snapshot, "b.png") == "outside_folder"


@pytest.mark.parametrize(
    ("image", "form"),
    [(RGB, "PNG"), (RGB, "JPEG"), (RGB, "WEBP"), (RGB.convert("L"), "PNG"), (RGB.convert("P"), "PNG"),
     (RGB.convert("RGBA"), "PNG"), (RGB.convert("CMYK"), "JPEG"), (RGB.convert("1"), "PNG")],
)  # fmt: skip
def test_the_publishers_bytes_are_kept_and_decode_to_the_pixels(image: Image.Image, form: str) -> None:
    content = written(image, form)
    frame = read_frame(content)
    assert frame.encoded == content
    assert frame.image.shape == (48, 64, 3)
    assert np.array_equal(decode_image(content), frame.image)


def test_what_is_not_stored_that_way_is_not_kept() -> None:
    clear = read_frame(written(HALF_CLEAR, "PNG"))
    assert clear.encoded is None
    assert clear.image[0, 0].min() == 255
    assert np.array_equal(clear.image[:, -1], np.asarray(RGB)[:, -1]) is False
    assert read_frame(written(RGB, "BMP")).encoded is None


def test_orientation_is_applied_only_when_asked() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = written(RGB, "JPEG", exif=exif.tobytes())
    stored, upright = read_frame(content), read_frame(content, upright=True)
    assert (stored.image.shape, upright.image.shape) == ((48, 64, 3), (64, 48, 3))
    assert np.array_equal(upright.image, np.rot90(stored.image, -1))
    assert (stored.encoded, upright.encoded) == (content, None)


def test_pictures_that_no_model_takes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = Image.fromarray(np.zeros((4, 4), np.uint16))
    moving = written(RGB, "GIF", save_all=True, append_images=[Image.fromarray(PICTURES.pixels(2))])
    assert reason(read_frame, written(deep, "PNG")) == "image_mode"
    assert reason(read_frame, moving) == "image_animated"
    assert reason(read_frame, written(Image.new("RGB", (2000, 2)), "PNG")) == "image_shape"
    monkeypatch.setattr("gemvlm.curation.sources.folder.LARGEST_PIXELS", 3000)
    assert reason(read_frame, written(RGB, "PNG")) == "image_too_large"


def test_depth_takes_its_meaning_from_the_source(tmp_path: Path) -> None:
    counts = np.array([[0, 1500], [3000, 65535]], np.uint16)
    content = written(Image.fromarray(counts), "PNG")
    metric = read_depth(content, MILLIMETRE_PNG)
    assert (metric.kind, metric.unit) == ("metric_z", "m")
    assert np.array_equal(metric.values, np.array([[0, 1.5], [3, 65.535]], np.float32))
    assert metric.valid.tolist() == [[False, True], [True, True]]
    relative = read_depth(content, DepthFormat("affine_disparity", invalid=(0, 65535)))
    assert relative.values.tolist() == [[0, 1500], [3000, 0]]
    grey = written(Image.fromarray(np.full((2, 2, 3), 7, np.uint8)), "PNG")
    assert read_depth(grey, DepthFormat()).values.tolist() == [[7, 7], [7, 7]]
    with pytest.raises(ValueError, match="affine_depth has no unit"):
        DepthFormat("affine_depth", 0.001)


def test_depth_arrays(tmp_path: Path) -> None:
    metres = DepthFormat("metric_z")
    values = np.array([[1.5, np.nan], [2.0, 0.0]], np.float32)
    np.save(tmp_path / "a.npy", values)
    assert reason(read_depth, tmp_path / "a.npy", metres) == "depth_not_finite"
    lenient = DepthFormat("metric_z", nan_is_invalid=True)
    assert read_depth(tmp_path / "a.npy", lenient).valid.tolist() == [[True, False], [True, False]]
    np.savez_compressed(tmp_path / "b.npz", depth=np.ones((2, 2), np.float32), conf=np.ones((2, 2)))
    assert read_depth(tmp_path / "b.npz", metres).valid.all()
    np.savez_compressed(tmp_path / "c.npz", a=values, b=values)
    assert reason(read_depth, tmp_path / "c.npz", metres) == "depth_array"
    np.savez_compressed(tmp_path / "d.npz", values=np.ones((2, 2), np.float32), valid=np.eye(2) > 0)
    assert read_depth(tmp_path / "d.npz", metres).valid.tolist() == [[True, False], [False, True]]


def test_depth_of_the_same_aspect_can_be_fitted() -> None:
    content = written(Image.fromarray(np.full((24, 32), 900, np.uint16)), "PNG")
    assert read_depth(content, DepthFormat("metric_z", 0.001, fit=True), (48, 64)).values.shape == (48, 64)
    assert read_depth(content, DepthFormat("metric_z", 0.001, fit=True), (64, 48)).values.shape == (24, 32)


def test_videos_and_folders_of_frames_are_sampled_alike(tmp_path: Path) -> None:
    pytest.importorskip("av")
    PICTURES.video(tmp_path / "v.mp4", 1, frames=60, fps=6)
    film = read_video(tmp_path / "v.mp4", VideoSampling())
    assert len(film) == 20
    assert [film[0].time_s, film[-1].time_s] == pytest.approx([0, 59 / 6])
    assert np.abs(film[0].image.astype(int) - PICTURES.pixels(1)).mean() < 12
    assert len(read_video(tmp_path / "v.mp4", VideoSampling(most=9))) == 9
    for index in range(11):
        PICTURES.picture(tmp_path / "frames" / f"frame_{index}.png", index)
    taken = read_frame_folder(tmp_path / "frames", VideoSampling(least=3, fps=1.0), fps=5.0)
    assert [frame.time_s for frame in taken] == [0.0, 1.0, 2.0]
    assert np.array_equal(taken[2].image, PICTURES.pixels(10))


def test_parts_hold_whole_records_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RECORDS_PER_PART", 3)
    rows = [{"n": index, "text": 'quoted "}, {" [ and \\ \n'} for index in range(8)]
    (tmp_path / "a.json").write_text("\ufeff " + json.dumps(rows, indent=1) + "\n")
    (tmp_path / "b.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    for name in ("a.json", "b.jsonl"):
        parts = json_parts(tmp_path / name, name)
        assert len(parts) == 3
        found = [(raw.row, raw.fields()) for part in parts for raw in json_records(tmp_path, part)]
        assert found == list(enumerate(rows))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_stray_byte_costs_one_record(indent: int | None, tmp_path: Path) -> None:
    rows = [{"n": index, "text": "words"} for index in range(50)]
    content = bytearray(json.dumps(rows, indent=indent).encode())
    content[content.index(b"10,")] = ord("x")
    (tmp_path / "a.json").write_bytes(bytes(content))
    found = [raw for part in json_parts(tmp_path / "a.json", "a.json") for raw in json_records(tmp_path, part)]
    assert len(found) == 50
    assert reason(found[10].fields) == "bad_json"


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("old", "new"), [('"words"', '"words'), ("}", ""), ("{", ""), ('"text"', '"te"xt"'), (",", "")]
)
def test_a_lost_mark_costs_one_record(old: str, new: str, indent: int | None, tmp_path: Path) -> None:
    rows = [{"n": index, "text": "words"} for index in range(50)]
    whole = json.dumps(rows, indent=indent)
    at = whole.index(old, whole.index("7,"))
    (tmp_path / "a.json").write_text(whole[:at] + new + whole[at + len(old) :])
    found = [raw for part in json_parts(tmp_path / "a.json", "a.json") for raw in json_records(tmp_path, part)]
    good = []
    for raw in found:
        try:
            good.append(raw.fields())
        except RecordError:
            continue
    assert len(good) >= 48
    assert len(found) > len(good)
    assert all(row in rows for row in good)


def test_files_that_are_none_are_refused_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"not": "a list"}')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "words.parquet").write_text("words")
    for call, name, told in (
        (json_parts, "a.json", "is an array"),
        (json_parts, "empty.jsonl", "no records"),
        (json_parts, "none.jsonl", "can't be read"),
        (parquet_parts, "words.parquet", "not a readable Parquet"),
    ):
        with pytest.raises(ValueError, match=told):
            call(tmp_path / name, name)
    (rejection,) = imported(json_records(tmp_path, "none.jsonl:0-10:0"), lambda raw, record: [])
    assert rejection.reason == "file_unreadable"  # type: ignore[union-attr]
