"""Whoever answers gives one reply per item; what is wrong with an item is that item's failure."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_benchmark import ToyBenchmark

from gemvlm.data.video import evenly
from gemvlm.evaluation.answerers import Answerer, Baseline, Blind, Reply, open_answerer
from gemvlm.evaluation.answerers.answerer import answer_in_halves, marked_per_frame, without_media
from gemvlm.evaluation.answerers.media import frames_of
from gemvlm.evaluation.answerers.named import read_convention
from gemvlm.evaluation.benchmark import Convention, Item, Media

TOY = ToyBenchmark()
ITEMS = TOY.items()


def mean_score(answerer: Answerer, benchmark: ToyBenchmark = TOY) -> dict[str, float]:
    items = benchmark.items()
    answerer.meet(benchmark, items)
    replies = answerer.answer(items)
    scores = [
        benchmark.score(item, reply.text, answerer.convention) for item, reply in zip(items, replies, strict=True)
    ]
    return benchmark.summary(items, scores)


def test_the_oracle_reaches_the_top_in_every_convention() -> None:
    for unit in ("thousand", "fraction", "hundred", "pixel"):
        for axes in ("xy", "yx"):
            assert mean_score(Baseline("oracle", Convention(unit, axes)))["overall"] == 1.0


def test_a_guess_is_the_items_own_and_scores_what_chance_gives() -> None:
    benchmark = ToyBenchmark(400)
    found = mean_score(Baseline("random"), benchmark)
    assert found["side"] == pytest.approx(0.5, abs=0.08)
    assert found["point"] == pytest.approx(benchmark.chance(benchmark.items()[1]), abs=0.03)
    random = Baseline("random")
    random.meet(TOY, ITEMS)
    one_by_one = [random.answer([item])[0] for item in reversed(ITEMS)][::-1]
    assert random.answer(ITEMS) == one_by_one
    assert random.answer(ITEMS) != open_answerer_met("random", seed=1).answer(ITEMS)


def open_answerer_met(name: str, seed: int = 0) -> Answerer:
    answerer = open_answerer(name, seed=seed)
    answerer.meet(TOY, ITEMS)
    return answerer


def test_the_majority_is_the_best_constant_of_each_category() -> None:
    truths = [item.truth for item in ITEMS if item.category == "side"]
    found = mean_score(Baseline("majority"))
    assert found["side"] == max(truths.count("A"), truths.count("B")) / len(truths)
    assert 1 / 6 <= found["point"] <= 0.5


def test_a_baseline_has_to_meet_its_benchmark() -> None:
    with pytest.raises(ValueError, match="meet a benchmark"):
        Baseline("oracle").answer(ITEMS)


class Eyes:
    """Tells what it is shown."""

    name, convention, batch_size = "eyes", Convention(), 4

    def describe(self) -> dict[str, str]:
        return {"kind": "eyes"}

    def meet(self, benchmark: object, items: Sequence[Item]) -> None:
        pass

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        shown = [[frames[0] for frames in frames_of(item)] for item in items]
        return [
            Reply(f"{[p.shape for p in own]} {[int(p.std()) for p in own]} {item.prompt}")
            for own, item in zip(shown, items, strict=True)
        ]


def test_a_blind_model_sees_nothing_but_is_asked_the_same() -> None:
    point = ITEMS[1]
    assert "[(64, 64, 3)]" in Eyes().answer([point])[0].text
    withheld, grey = Blind(Eyes()), Blind(Eyes(), "grey")
    assert withheld.answer([point])[0].text == "[] [] Point at  the square."
    assert grey.answer([point])[0].text == "[(64, 64, 3)] [0] Point at <image> the square."
    assert withheld.describe() == {"kind": "eyes", "images": "withheld"}
    assert withheld.name != grey.name
    assert without_media(point).media == ()


def test_one_bad_item_of_a_batch_is_the_only_failure() -> None:
    bad = dataclasses.replace(ITEMS[3], media=(Media(b"rubbish"),))
    asked = [*ITEMS[:3], bad, *ITEMS[4:]]

    def ask(items: Sequence[Item]) -> list[Reply]:
        return [Reply(str(len(frames_of(item)))) for item in items]

    replies = answer_in_halves(asked, ask)
    assert [reply.failure is None for reply in replies] == [i != 3 for i in range(12)]
    assert "can't be decoded" in str(replies[3].failure)


def test_marks_stand_for_frames() -> None:
    assert marked_per_frame("a <image> b <image> c", [1, 3]) == "a <image> b <image><image><image> c"
    assert marked_per_frame("no marks", [2]) == "no marks"
    with pytest.raises(ValueError, match="2 <image> for 1 media"):
        marked_per_frame("<image><image>", [1])


def test_a_video_is_shown_as_evenly_spaced_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for level in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 10 * level, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    item = dataclasses.replace(ITEMS[0], media=(Media(path, "video"), Media(path.read_bytes(), "video")), frames=4)
    for frames in frames_of(item):
        levels = [round(float(frame.mean()) / 10) for frame in frames]
        assert levels == evenly(20, 4) == [0, 6, 12, 19]
    torn = dataclasses.replace(item, media=(Media(path.read_bytes()[:200], "video"),))
    with pytest.raises(ValueError, match="can't be decoded"):
        frames_of(torn)
    assert evenly(3, 32) == [0, 1, 2]
    with pytest.raises(ValueError, match="0 frames"):
        evenly(3, 0)


def test_pictures_of_other_modes_and_absent_ones(tmp_path: Path) -> None:
    grey = io.BytesIO()
    Image.new("L", (5, 4), 7).save(grey, "PNG")
    item = dataclasses.replace(ITEMS[0], media=(Media(grey.getvalue()),))
    assert frames_of(item)[0][0].shape == (4, 5, 3)
    with pytest.raises(ValueError, match=r"gone\.png: can't be decoded"):
        frames_of(dataclasses.replace(item, media=(Media(tmp_path / "gone.png"),)))


def test_our_checkpoint_answers_with_pictures_and_without() -> None:
    seeing = open_answerer("nano?batch=4", device="cpu")
    assert (seeing.name, seeing.convention, seeing.batch_size) == ("nano", Convention("thousand"), 4)
    assert {"kind", "recipe", "step", "weights"} <= set(seeing.describe())
    video = dataclasses.replace(ITEMS[1], system="Be short.", prompt="<image> and <image>?", media=ITEMS[1].media * 2)
    bad = dataclasses.replace(ITEMS[2], media=(Media(b"rubbish"),))
    asked = [dataclasses.replace(item, max_new_tokens=3) for item in (ITEMS[0], video, bad, ITEMS[4])]
    replies = seeing.answer(asked)
    assert [reply.frames for reply in replies] == [1, 2, 0, 1]
    assert [reply.failure is None for reply in replies] == [True, True, False, True]
    assert replies[0].text
    assert [seeing.answer([item])[0] for item in asked[:2]] == replies[:2], "neighbours do not matter"
    assert Blind(seeing).answer(asked[:1])[0].failure is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "neither a folder nor a shipped checkpoint"),
        ("nano?colour=red", "option colour is unknown; there are batch, name"),
        ("random?batch=3", "option batch is unknown"),
        ("nano?batch=-3", "positive number"),
        ("http://localhost:1/v1", "which model to ask.*convention=thousand"),
        ("http://localhost:1/v1?model=a&convention=metres", "convention 'metres' is unknown"),
        ("http://localhost:1/v1?model=a&convention=pixel&timeout=soon", "timeout=soon"),
        ("blind:nowhere", "neither a folder"),
    ],
)
def test_names_that_mean_nobody(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        open_answerer(name, device="cpu")


def test_conventions_and_blind_models_have_names() -> None:
    assert open_answerer("blind:random?name=words").name == "words, images withheld"
    assert open_answerer("grey:oracle").name == "oracle, images grey"
    assert read_convention("thousand") == Convention("thousand", "xy")
    assert read_convention("pixel-yx") == Convention("pixel", "yx")
