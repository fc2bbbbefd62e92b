"""Planted leaks of a made-up benchmark are all found; what only resembles it stays."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gemvlm.curation.overlap import Blocklist, Fingerprints, OverlapRules, make_fingerprints
from gemvlm.sample import Frame, Point, Sample, Turn

LONG = "If I stand next to the {a} and look towards the {b}, on which side of me would I find the {c} at the back?"
THINGS = [
    "sofa",
    "lamp",
    "window",
    "table",
    "cupboard",
    "plant",
    "door",
    "bed",
    "desk",
    "oven",
    "sink",
    "mirror",
    "rug",
]


def scene(seed, height=96, width=128):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    image = np.zeros((height, width, 3)) + rng.uniform(0, 255, 3)
    for _ in range(14):
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(6, 30)
        image[(abs(rows - y) < r) & (abs(columns - x) < r * rng.uniform(0.4, 1.6))] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def question(rng):
    a, b, c = (THINGS[i] for i in rng.permutation(len(THINGS))[:3])
    return LONG.format(a=a, b=b, c=c)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content):
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "images").mkdir()
    for seed in range(30):
        (folder / "images" / f"{seed}.png").write_bytes(encoded(scene(seed)))
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG not one")
    rng = np.random.default_rng(0)
    rows = [
        {"question": question(rng), "scene_name": f"room{i:04d}", "video_id": i, "answer": "left"} for i in range(20)
    ]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    turns = [{"from": "human", "value": "<image>\nWhat would happen to the cup if somebody pulled the cloth away?"}]
    (folder / "test.json").write_text(json.dumps([{"conversations": turns}]))
    with (folder / "more.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["prompt", "n"], ["Could the tall robot reach over the kitchen counter from here?", 1]])
    table = [{"image": {"bytes": encoded(scene(500), "JPEG", quality=90), "path": "a.jpg"}, "query": "Left or right?"}]
    pq.write_table(pa.Table.from_pylist(table), folder / "test.parquet")
    return folder, [row["question"] for row in rows]


@pytest.fixture(scope="module")
def prints(benchmark):
    return make_fingerprints(benchmark[0], "rooms", scenes=("extra_scene",))


@pytest.fixture(scope="module")
def blocklist(prints):
    return Blocklist([prints])


def sample(image=None, question="What is it?", scene="", **more):
    turn = Turn(question, "left", family="f", task="reasoning", kind="text", **more)
    return Sample("s", () if image is None else (Frame(image),), (turn,), scene, "")


def reasons(found):
    return [rejection.reason for rejection in found]


def test_a_folder_becomes_a_file_and_comes_back(prints, tmp_path):
    assert len(prints.files) == 31
    assert len(prints.scenes) == 21
    assert len(prints.questions) >= 20
    assert prints.unreadable[0].startswith("images/broken.png")
    assert "too short" in prints.unreadable[1]
    prints.save(tmp_path / "rooms.json")
    assert Fingerprints.from_file(tmp_path / "rooms.json") == prints
    assert Blocklist.from_files([tmp_path / "rooms.json"]).check(sample(scene="room0003"))


def test_planted_pictures_are_found_however_they_were_saved(blocklist):
    rng = np.random.default_rng(1)
    for seed in range(30):
        picture = scene(seed)
        assert reasons(blocklist.check(sample(picture))) == ["benchmark_image"]
        jpeg = decoded(encoded(picture, "JPEG", quality=int(rng.integers(30, 95))))
        side = round(128 * rng.uniform(0.5, 2))
        resized = np.array(Image.fromarray(picture).resize((side, side * 3 // 4), Image.Resampling.BICUBIC))
        lighter = np.clip(picture * 1.1 + 6.0, 0, 255).astype(np.uint8)
        noisy = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
        for copy in (jpeg, resized, lighter, noisy, picture[1:-1, 1:-1]):
            assert reasons(blocklist.check(sample(copy))) == ["benchmark_lookalike"]
    assert reasons(blocklist.check(sample(decoded(encoded(scene(500), "JPEG", quality=60))))) == ["benchmark_lookalike"]


def test_the_same_file_is_found_by_its_bytes(blocklist):
    content = encoded(scene(3))
    frame = Frame(scene(900), encoded=content)
    assert reasons(blocklist.check(replace(sample(), frames=(frame,)))) == ["benchmark_image"]


def test_other_pictures_stay(blocklist):
    for seed in range(1000, 1120):
        assert blocklist.check(sample(scene(seed))) == []
    assert blocklist.check(sample(np.zeros((64, 64, 3), np.uint8))) == []


def test_planted_questions_are_found_in_any_dress(benchmark, blocklist):
    for asked in benchmark[1]:
        assert reasons(blocklist.check(sample(question=asked))) == ["benchmark_question"]
        dressed = "<image> " + asked.upper().replace(",", " -- ") + "!!"
        assert reasons(blocklist.check(sample(question=dressed))) == ["benchmark_question"]
        longer = f"{asked} Answer with one word."
        assert reasons(blocklist.check(sample(question=longer))) == ["benchmark_ngrams"]
    cloth = "What would happen to the cup if somebody pulled the cloth away?"
    assert reasons(blocklist.check(sample(question=cloth))) == ["benchmark_question"]
    reach = "could the tall robot reach over the kitchen counter from here"
    assert reasons(blocklist.check(sample(question=reach))) == ["benchmark_question"]


def test_questions_of_the_same_template_or_of_few_words_stay(blocklist):
    for i in range(50):
        own = LONG.format(a=f"thing{i}", b=f"object{i}", c=f"item{i}")
        assert blocklist.check(sample(question=own)) == []
    assert blocklist.check(sample(question="Left or right?")) == []
    where = sample(question="Is <place:0> left or right of <place:1>?", places=(Point(0.1, 0.2), Point(0.3, 0.4)))
    assert blocklist.check(where) == []


def test_scenes_are_blocked_by_name_and_by_last_part(blocklist):
    assert reasons(blocklist.check(sample(scene="room0007"))) == ["benchmark_scene"]
    assert reasons(blocklist.check(sample(scene="Scans/ROOM0007"))) == ["benchmark_scene"]
    assert reasons(blocklist.check(sample(scene="extra_scene"))) == ["benchmark_scene"]
    assert blocklist.check(sample(scene="room00070")) == []
    assert blocklist.check(sample(scene="")) == []


def test_a_leaking_turn_is_named_and_the_others_stay(benchmark, blocklist):
    clean, leak = sample().turns[0], sample(question=benchmark[1][0]).turns[0]
    (rejection,) = blocklist.check(replace(sample(), turns=(clean, leak)))
    assert (rejection.field, rejection.stage) == ("turns[1]", "overlap")
    assert "rooms" in rejection.detail


def test_several_benchmarks_are_named_apart(prints):
    other = Fingerprints("halls", scenes=("hall1",), pictures=(12345,))
    both = Blocklist([prints, other], OverlapRules())
    assert "halls" in both.check(sample(scene="hall1"))[0].detail
    assert "rooms" in both.check(sample(scene(4)))[0].detail
    assert Blocklist([]).check(sample(scene(4), scene="room0001")) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 1}', '{"version": 9, "name": "x"}', "[" * 100_000,
                                     '{"version": 1, "name": "x", "pictures": ["a"]}'])  # fmt: skip
def test_files_that_are_none_are_named(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json"):
        Fingerprints.from_file(path)


def test_folders_without_content_are_named(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        make_fingerprints(tmp_path / "none", "x")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="1 files unreadable"):
        make_fingerprints(tmp_path, "x")
