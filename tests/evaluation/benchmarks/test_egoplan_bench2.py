"""EgoPlan-Bench2: the publisher's annotations beside its cuts, the copy with pictures, both readers of letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemvlm.evaluation.benchmark import Convention, Item, Score
from gemvlm.evaluation.benchmarks.egoplan_bench2 import EgoPlanBench2

ANY = Convention()
OPTIONS = ("attach stopwatch", "place oven tray", "operate oven", "set stopwatch")


def row(number: int) -> dict[str, Any]:
    return {
        "sample_id": f"ca6e9ec9-46ac_{number}",
        "domain": ["Hobbies", "Work", "Hobbies"][number],
        "scenario": "baking",
        "task_goal": "bake pastry in the oven",
        **{f"choice_{letter}": option for letter, option in zip("abcd", OPTIONS, strict=True)},
        "golden_choice_idx": "ABC"[number],
        "answer": OPTIONS[number],
        "task_start_frame": 0,
        "current_observation_frame": 656,
        "task_progress_metadata": [],
    }


@pytest.fixture
def folder(tmp_path: Path, png: Any, jpeg: Any) -> Path:
    (tmp_path / "EgoPlan-Bench2.json").write_text(json.dumps([row(n) for n in range(3)]))
    for number in range(2):
        cut = tmp_path / f"visual/keyframes_dir/ca6e9ec9-46ac_{number}"
        cut.mkdir(parents=True)
        for k in range(8):
            (cut / f"frame-{k}_frameID-{94 * k}.png").write_bytes(jpeg(k))
    (tmp_path / "visual/clip_dir").mkdir()
    (tmp_path / "visual/clip_dir/ca6e9ec9-46ac_2.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    return tmp_path


def test_items_show_the_key_frames_in_order_or_the_clip(folder: Path) -> None:
    items = EgoPlanBench2.open(str(folder)).items()
    assert [len(item.media) for item in items] == [8, 8, 1] and items[2].media[0].kind == "video"
    assert [Path(str(media.content)).name for media in items[0].media][:3] == [
        "frame-0_frameID-0.png",
        "frame-1_frameID-94.png",
        "frame-2_frameID-188.png",
    ]
    assert items[1].truth == "B" and items[1].category == "Work" and items[0].scene == items[1].scene == "ca6e9ec9-46ac"
    assert items[0].prompt == (
        "\nSelect the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, or D) of the correct option.\n\nConsidering the progress shown in the video and my current "
        "observation in the last frame, what action should I take next in order to bake pastry in the oven?\n\n"
        "A. attach stopwatch\nB. place oven tray\nC. operate oven\nD. set stopwatch\n"
    )


def test_the_copy_with_pictures_is_read_as_well(tmp_path: Path, jpeg: Any, write_table: Any) -> None:
    copied = {key: value for key, value in row(1).items() if key.startswith(("choice", "sample", "domain", "task_g"))}
    frames = [{"bytes": jpeg(k), "path": None} for k in range(8)]
    copied |= {"ground_truth": "B", "formatted_question": "What next?", "keyframes": frames}
    write_table(tmp_path / "data/train-00000-of-00001.parquet", [copied])
    (item,) = EgoPlanBench2.open(str(tmp_path)).items()
    assert item.prompt == "What next?" and item.truth == "B" and len(item.media) == 8


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_the_oracle_is_right_and_guesses_by_a_quarter(folder: Path, protocol: str, is_fair: Any) -> None:
    is_fair(EgoPlanBench2.open(str(folder), protocol), guesses=200)


@pytest.mark.parametrize("protocol", ["official", "lmms_eval"])
def test_scores_are_the_published_functions(protocol: str, vectors: Any) -> None:
    stored = vectors("egoplan_bench2")
    assert len(stored["cases"]) == 1000
    benchmark, column = EgoPlanBench2(Path(), protocol), stored["protocols"].index(protocol)
    for truth, reply, theirs in stored["cases"]:
        ours = benchmark.score(Item("1", (), "", truth, "Work", "1", options=OPTIONS), reply, ANY)
        assert ours.counted and ours.value == theirs[column] and (ours.parsed is not None or not ours.value), reply


@pytest.mark.parametrize(
    ("reply", "official", "lmms_eval"),
    [
        ("B", "B", "B"),
        ("The best answer is B.", "B", "B"),
        ("Answer: B", "B", "A"),  # lmms-eval does not cut the word's own A out
        ("The best option is B", "B", "B"),
        ("Best answer: C", "B", "B"),  # of its own B: the phrase stands in the list joined with the next
        ("Because of the oven, C", "B", "B"),
        ("b", None, None),
        ("I would attach it and only then go on to look for the oven tray", None, None),
    ],
)
def test_letters_by_hand(reply: str, official: str | None, lmms_eval: str | None) -> None:
    item = Item("1", (), "", "B", "Work", "1", options=OPTIONS)
    for protocol, letter in (("official", official), ("lmms_eval", lmms_eval)):
        assert EgoPlanBench2(Path(), protocol).score(item, reply, ANY) == Score(float(letter == "B"), letter)


def test_the_headline_is_the_accuracy(folder: Path) -> None:
    benchmark = EgoPlanBench2.open(str(folder))
    found = benchmark.summary(benchmark.items(), [Score(1.0, "A"), Score(1.0, "B"), Score(0.0, None)])
    assert found["overall"] == pytest.approx(2 / 3) and found["Hobbies"] == 0.5 and found["Work"] == 1


def test_missing_cuts_and_fields_are_named(folder: Path) -> None:
    (folder / "visual/keyframes_dir/ca6e9ec9-46ac_1/frame-3_frameID-282.png").unlink()
    with pytest.raises(ValueError, match=r"json:1: .*has the frames \[0, 1, 2, 4.*expected 0 to 7"):
        EgoPlanBench2.open(str(folder)).items()
    (folder / "visual/clip_dir/ca6e9ec9-46ac_2.mp4").unlink()
    (folder / "EgoPlan-Bench2.json").write_text(json.dumps([row(2)]))
    with pytest.raises(ValueError, match=r"cut them from Ego4D"):
        EgoPlanBench2.open(str(folder)).items()
    for change, words in [
        ({"sample_id": "../away"}, "no name of a file"),
        ({"golden_choice_idx": "E"}, "'E' is none of the 4 options"),
        ({"choice_d": None}, "'choice_d' must be str"),
        ({"domain": 3}, "'domain' must be str"),
    ]:
        (folder / "EgoPlan-Bench2.json").write_text(json.dumps([row(0) | change]))
        with pytest.raises(ValueError, match=words):
            EgoPlanBench2.open(str(folder)).items()
