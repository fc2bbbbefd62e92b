"""Published files are read whole, one row at a time, or refused with the row and the field that are to blame."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gemvlm.evaluation import published
from gemvlm.evaluation.published import folder_of, inside, need, picture, rows, video


def png(size: tuple[int, int] = (4, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 40)).save(buffer, "PNG")
    return buffer.getvalue()


RECORDS = [{"id": "a", "question": 'What, "there"?\nsay'}, {"id": "b", "question": "é"}]


def write_all(folder: Path) -> None:
    (folder / "t.json").write_text(json.dumps(RECORDS, indent=1), encoding="utf-8-sig")
    (folder / "t.jsonl").write_text("\n\n".join(map(json.dumps, RECORDS)))
    pq.write_table(pa.Table.from_pylist(RECORDS), folder / "t.parquet")
    quoted = ['"What, ""there""?\nsay"', "é"]
    for suffix, between in ((".csv", ","), (".tsv", "\t")):
        lines = [between.join(("id", "question")), *(between.join(pair) for pair in zip("ab", quoted, strict=True))]
        (folder / f"t{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet", "csv", "tsv"])
def test_every_kind_of_table_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    write_all(tmp_path)
    assert list(rows(tmp_path, f"*.{suffix}")) == [(f"t.{suffix}:{i}", record) for i, record in enumerate(RECORDS)]


def test_files_come_in_the_order_of_their_names_and_long_arrays_are_streamed(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps([{"n": i, "text": "x" * 70_000} for i in range(60)]))
    (tmp_path / "a.json").write_text('[ {"n": -1} , ]'.replace(" , ]", "]"))
    (tmp_path / "c.json").write_text("[]")
    assert [row["n"] for _, row in rows(tmp_path, "*.json")] == [-1, *range(60)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", '[{"a": 1}, {"a": ', "t.json:1"),
        ("t.json", '[{"a": 1} {"a": 2}]', "t.json:0"),
        ("t.json", '"a"', "an array"),
        ("t.json", '{"a": 1}\n{"a"', "t.json:1"),
        ("t.json", "[1]", "t.json:0|found a int"),
        ("t.json", "[" * 100_000, "t.json:0"),
        ("t.jsonl", '{"a": 1}\n{"a"', "t.jsonl:1"),
        ("t.csv", "a,b\n1,2\n3\n", "t.csv:1"),
        ("t.tsv", 'a\tb\n"1\t2\n', "t.tsv:0"),
        ("t.parquet", "no parquet", "t.parquet:0"),
        ("t.xml", "<a/>", "no table"),
    ],
)
def test_damage_is_named_by_file_and_row(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=said):
        list(rows(tmp_path, "t.*"))


def test_a_folder_without_the_table_is_not_empty_but_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file matches"):
        list(rows(tmp_path, "*.json"))


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_of(str(tmp_path), "owner/set") == tmp_path
    (tmp_path / "file").write_text("x")
    for place in (str(tmp_path / "absent" / "deeper"), str(tmp_path / "file"), "", "~/x"):
        with pytest.raises(ValueError, match="owner/set"):
            folder_of(place, "owner/set")

    import huggingface_hub

    class Api:
        def dataset_info(self, *_: object, **__: object) -> object:
            raise TimeoutError("no way out")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(ValueError, match=r"not to be had from the hub.*no way out"):
        folder_of("owner/set", "owner/set")


def test_a_needed_field_is_there_and_is_what_it_should_be() -> None:
    row = {"text": "a", "count": 3, "flag": True, "list": [1]}
    assert need(row, "text", str, "f:0") == "a"
    assert need(row, "count", float, "f:0") == 3.0
    assert need(row, "list", (list, str), "f:0") == [1]
    for field, kind, said in (
        ("absent", str, "f:0.*'absent' is missing.*count, flag"),
        ("count", str, "f:0.*'count' must be str, found int 3"),
        ("flag", int, "found the bool True"),
    ):
        with pytest.raises(ValueError, match=said):
            need(row, field, kind, "f:0")


def test_a_picture_in_every_published_form(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "a.png"
    path.write_bytes(png())
    text = base64.b64encode(png((64, 64)) + bytes(600)).decode()
    assert picture("images/a.png", tmp_path, "f:0").content == path
    assert picture({"bytes": None, "path": "images/a.png"}, tmp_path, "f:0").content == path
    assert picture(png(), tmp_path, "f:0").content == png()
    assert picture({"bytes": png(), "path": "elsewhere.png"}, tmp_path, "f:0").content == png()
    assert picture(text, tmp_path, "f:0").content == base64.b64decode(text)
    assert picture("data:image/png;base64," + base64.b64encode(png()).decode(), tmp_path, "f:0").content == png()
    assert video("images/a.png", tmp_path, "f:0").kind == "video"


def test_no_path_leaves_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    outside = tmp_path / "secret.png"
    outside.write_bytes(png())
    (folder / "link.png").symlink_to(outside)
    for path in ("../secret.png", str(outside), "link.png", "absent.png", "", "a\0b", 3, None):
        with pytest.raises(ValueError, match="f:7"):
            inside(folder, path, "f:7")


def test_the_hub_keeps_its_files_as_links_to_blobs(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1").write_bytes(png())
    (snapshot / "a.png").symlink_to(blobs / "1")
    assert picture("a.png", snapshot, "f:0").content == snapshot / "a.png"


@pytest.mark.parametrize("value", [b"rubbish", {"bytes": None, "path": None}, "x" * 600, "bad.png", [1]])
def test_what_is_no_picture_is_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "bad.png").write_bytes(png()[:20])
    with pytest.raises(ValueError, match="f:3"):
        picture(value, tmp_path, "f:3")


def test_a_picture_has_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "LARGEST_PIXELS", 11)
    with pytest.raises(ValueError, match="12 pixels"):
        picture(png(), tmp_path, "f:0")
