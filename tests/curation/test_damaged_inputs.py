"""500 damaged folders, and the damages that have names: a rejection with its reason or no harm; no silence."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gemvlm.curation.source import Rejection, Source
from gemvlm.data.quarantine import check
from gemvlm.sample import Sample

HERE = Path(__file__).parent
DAMAGES = 500
COSTLY = {"episodes": 2, "rgbd_folder": 4, "scannet": 4, "spar": 12, "tum_rgbd": 4}
"""Damages of the layouts that take long to read (questions are written, videos decoded); the others share the rest."""
CHECKSUMMED = (".png", ".parquet")
Outcome = Sample | Rejection


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"damaged_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MUTATOR = load(HERE / "mutator.py")
PICTURES = load(HERE / "layouts" / "pictures.py")
NAMES = sorted(path.stem for path in (HERE / "layouts").glob("*.py") if path.stem != "pictures")


class Layout:
    """A tiny data set, written once and copied for every damage."""

    def __init__(self, name: str, folder: Path) -> None:
        self.module = load(HERE / "layouts" / f"{name}.py")
        self.pristine, self.damaged = folder / "pristine" / name, folder / "damaged" / name
        self.pristine.mkdir(parents=True)
        self.write: Callable[[Path], Source] = lambda place: self.module.write(place, PICTURES)
        self.source = self.write(self.pristine)
        self.before, error = outcomes(self.source)
        assert error is None
        self.contents = {signature(each) for each in self.before if isinstance(each, Sample)}

        shutil.copytree(self.pristine, self.damaged)

    def repair(self, file: Path) -> None:
        """Undoes what the mutator did to `file` of the copy."""
        if file.is_dir():
            file.rmdir()
        file.with_name(file.name + ".old").unlink(missing_ok=True)
        shutil.copyfile(self.pristine / file.relative_to(self.damaged), file)

    def at(self, folder: Path) -> Source:
        """The source as the layout made it, looking at another folder."""
        values = {each.name: getattr(self.source, each.name) for each in fields(self.source)}  # type: ignore[arg-type]
        paths = {name: value for name, value in values.items() if isinstance(value, Path)}
        moved = {name: folder / value.relative_to(self.pristine) for name, value in paths.items()}
        return replace(self.source, **moved)  # type: ignore[type-var]


def outcomes(source: Source) -> tuple[list[Outcome], str | None]:
    """All that comes out, and the message if the folder as a whole is refused. Nothing else may be raised."""
    try:
        parts = source.parts()
    except ValueError as error:
        return [], str(error)
    return [each for part in parts for each in source.read(part)], None


def signature(sample: Sample) -> tuple[Any, ...]:
    """What a sample says, without where it was read."""
    frames = tuple(
        (
            frame.image.shape,
            zlib.crc32(frame.image.tobytes()),
            None if frame.depth is None else zlib.crc32(np.where(frame.depth.valid, frame.depth.values, 0).tobytes()),
        )
        for frame in sample.frames
    )
    return frames, repr(sample.turns), sample.dialogue, sample.system


def records(folder: Path) -> int | None:
    """How many records the JSON, JSONL and Parquet files hold, None if one of them does not parse."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            if path.suffix == ".jsonl":
                count += sum(bool(line.strip()) for line in path.read_bytes().split(b"\n"))
            elif path.suffix == ".json":
                count += len(json.loads(path.read_bytes()))
            elif path.suffix == ".parquet":
                count += pq.ParquetFile(path).metadata.num_rows
        except (ValueError, TypeError, OSError, RecursionError, pa.ArrowException):
            return None
    return count


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_refused_with_its_reason_or_harmless(name: str, tmp_path: Path) -> None:
    layout = Layout(name, tmp_path)
    by_records = records(layout.pristine) == len(layout.before)
    kinds: Counter[str] = Counter()
    shared = -(-(DAMAGES - sum(COSTLY.values())) // (len(NAMES) - len(COSTLY)))
    for number in range(COSTLY.get(name, shared)):
        rng = np.random.default_rng((20260528, zlib.crc32(name.encode()), number))
        folder = layout.damaged
        done = MUTATOR.damage(folder, rng)
        told = f"{name} #{number}: {done.file.relative_to(folder)}: {done.how}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            after, refused = outcomes(layout.at(folder))
        counted = records(folder) if by_records else None
        layout.repair(done.file)
        if refused is not None:
            assert str(folder) in refused, f"{told}: {refused}"
            kinds["folder refused"] += 1
            continue
        samples = [each for each in after if isinstance(each, Sample)]
        rejections = [each for each in after if isinstance(each, Rejection)]
        assert all(each.reason and each.detail and each.file for each in rejections), told
        assert all(check(sample) is None for sample in samples), told
        changed = [sample for sample in samples if signature(sample) not in layout.contents]
        if done.bytes and done.file.suffix in CHECKSUMMED:
            assert not changed, told
        if counted is not None:
            lost = [each for each in rejections if each.reason in ("file_unreadable", "file_cut_off")]
            assert lost or len(after) == counted, f"{told}: {counted} records, {len(after)} outcomes"
        elif by_records:
            assert rejections, told
        kinds["changed" if changed else "rejected" if len(rejections) > 0 else "harmless"] += 1
    assert name in COSTLY or kinds["rejected"] > sum(kinds.values()) // 5, kinds


@pytest.fixture
def gem(tmp_path: Path) -> Layout:
    return Layout("gem_250k", tmp_path)


def line(**changes: Any) -> dict[str, Any]:
    talk = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A mug."}]
    return {"image": "images/desk.png", "conversations": talk} | changes


def said(question: str, answer: str = "A mug.") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize(
    ("record", "reason", "field"),
    [
        (line(image="images/none.png"), "missing_file", "image"),
        (line(image="../../secret.png"), "outside_folder", "image"),
        (line(image="/etc/hostname"), "outside_folder", "image"),
        (line(image="images"), "missing_file", "image"),
        (line(image=7), "bad_path", "image"),
        (line(image=None), "placeholders", "conversations"),
        (line(conversations=said("<image><image>Same?")), "placeholders", "conversations"),
        (line(conversations=said("What?")), "placeholders", "conversations"),
        (line(conversations=said("<image>Which? (A) left (B) right", "C")), "option_not_found", "answer"),
        (line(conversations=said("<image>At <place:3>?")), "place_marker", "conversations"),
        (line(conversations=[]), "no_conversation", "conversations"),
        (line(conversations=said("<image>What?", "")), "empty_answer", "conversations"),
        ([1, 2], "not_an_object", ""),
        ("{torn", "bad_json", ""),
        ('{"image": "a", "image": "b"}', "repeated_key", "image"),
        ('{"id": NaN}', "not_finite", ""),
        ("[" * 100_000, "bad_json", ""),
    ],
)
def test_a_bad_line_is_refused_and_its_neighbours_are_read(record: Any, reason: str, field: str, gem: Layout) -> None:
    file = gem.pristine / "GEM-250K.jsonl"
    lines = file.read_text().splitlines()
    lines.insert(1, record if isinstance(record, str) else json.dumps(record))
    file.write_text("\n".join(lines) + "\n")
    after, refused = outcomes(gem.source)
    assert refused is None
    assert [type(each) for each in after] == [Sample, Rejection, *[Sample] * 5]
    rejection = after[1]
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.field, rejection.file) == (reason, field, "GEM-250K.jsonl:1")
    assert rejection.detail.startswith("GEM-250K.jsonl, row 1")


def test_a_link_out_of_the_folder_is_refused(gem: Layout, tmp_path: Path) -> None:
    PICTURES.picture(tmp_path / "secret.png", 9)
    (gem.pristine / "images/desk.png").unlink()
    (gem.pristine / "images/desk.png").symlink_to(tmp_path / "secret.png")
    reasons = [each.reason for each in outcomes(gem.source)[0] if isinstance(each, Rejection)]
    assert reasons == ["outside_folder", "outside_folder"]


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def smaller(path: Path) -> None:
    Image.fromarray(np.full((8, 6), 900, np.uint16)).save(path)


def empty_map(path: Path) -> None:
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(path)


def coloured(path: Path) -> None:
    Image.fromarray(PICTURES.pixels(3)).save(path)


def array(values: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, values)

    return write


def boastful(path: Path) -> None:
    """A header that promises a terabyte."""
    array(np.zeros((48, 64), np.float32))(path)
    path.write_bytes(path.read_bytes().replace(b"(48, 64)", b"(9999999, 99999)").replace(b" " * 8, b"", 1))


MAP = np.ones((48, 64), np.float32)


@pytest.mark.parametrize(
    ("file", "spoil", "reason"),
    [
        ("images/desk.png", torn, "image_unreadable"),
        ("images/desk.png", flipped, "image_unreadable"),
        ("images/desk.png", lambda path: path.write_text("words"), "image_unreadable"),
        ("images/desk.png", lambda path: path.write_bytes(b""), "image_unreadable"),
        ("images/desk.png", smaller, "image_mode"),
        ("depth/desk.png", torn, "depth_unreadable"),
        ("depth/desk.png", flipped, "depth_unreadable"),
        ("depth/desk.png", smaller, "depth_size"),
        ("depth/desk.png", empty_map, "depth_empty"),
        ("depth/desk.png", coloured, "depth_mode"),
        ("depth/desk.png", array(np.where(np.eye(48, 64) > 0, np.nan, MAP)), "depth_not_finite"),
        ("depth/desk.png", array(np.where(np.eye(48, 64) > 0, np.inf, MAP)), "depth_not_finite"),
        ("depth/desk.png", array(-MAP), "depth_negative"),
        ("depth/desk.png", array(np.array([{}], object)), "depth_array"),
        ("depth/desk.png", boastful, "depth_"),
        ("depth/desk.png", lambda path: path.unlink(), "missing_depth"),
        ("videos/pour.mp4", torn, "video_"),
        ("videos/pour.mp4", lambda path: path.write_text("words"), "video_unreadable"),
    ],
)
def test_a_spoilt_file_is_refused_where_it_is_used(
    file: str, spoil: Callable[[Path], None], reason: str, gem: Layout
) -> None:
    spoil(gem.pristine / file)
    after, refused = outcomes(gem.source)
    assert refused is None
    assert len(after) == len(gem.before)
    rejections = [each for each in after if isinstance(each, Rejection)]
    assert rejections
    assert all(each.reason.startswith(reason) and Path(file).name in each.detail for each in rejections), rejections
    assert all(signature(each) in gem.contents for each in after if isinstance(each, Sample))


def test_a_torn_json_array_gives_what_is_whole_and_says_that_the_rest_is_missing(tmp_path: Path) -> None:
    layout = Layout("llava", tmp_path)
    file = layout.pristine / "first.json"
    file.write_text(json.dumps(json.loads(file.read_text()) * 120)[:-30])
    after, refused = outcomes(layout.source)
    assert refused is None
    rejections = [each for each in after if isinstance(each, Rejection)]
    assert len(after) - len(layout.before) == 240 - 2 + 1
    assert {each.reason for each in rejections} == {"bad_json", "file_cut_off"}
