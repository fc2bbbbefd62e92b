"""Copies are found however they were saved; what only resembles them stays."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gemvlm.curation.duplicates import DuplicateRules, MediaPrint, find_duplicates, media_print
from gemvlm.curation.minhash import signature, similarities
from gemvlm.curation.perceptual_hash import distances, perceptual_hash
from gemvlm.sample import Frame, Point, Sample, Turn

QUESTION = "Which of the two is further to the left in the image, the red mug or the small blue box on the shelf?"


def scene(seed, height=120, width=160):
    """A picture with large shapes, as photographs have: a few coloured discs and boxes on a gradient."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * rng.uniform(0, 1) + columns * rng.uniform(0, 1) + rng.uniform(0, 60)] * 3, -1)
    for _ in range(12):
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(8, 35)
        inside = (abs(rows - y) < r) & (abs(columns - x) < r * rng.uniform(0.4, 1.6))
        image[inside] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def saved_again(image, quality=40, scale=0.7):
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    buffer = io.BytesIO()
    Image.fromarray(image).resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


def sample(name, *images, question=QUESTION, answer="red mug", places=()):
    turn = Turn(question, answer, family="f", task="reasoning", kind="text", places=places)
    return Sample(name, tuple(Frame(image) for image in images), (turn,), "", "")


def duplicates(samples, rules=None):
    return [r.id for r in find_duplicates(map(media_print, samples), rules)]


def test_hashes_survive_saving_and_tell_pictures_apart():
    pictures = [scene(seed) for seed in range(60)]
    hashes = np.array([perceptual_hash(p) for p in pictures], np.uint64)
    for picture, own in zip(pictures, hashes, strict=True):
        assert distances(int(own), np.array([perceptual_hash(saved_again(picture))], np.uint64))[0] <= 6
    apart = np.stack([distances(int(own), hashes) for own in hashes])
    assert apart[~np.eye(60, dtype=bool)].min() > 8


def test_a_flat_picture_has_no_hash():
    assert perceptual_hash(np.full((50, 70, 3), 127, np.uint8)) is None
    assert duplicates([sample(n, np.full((64, 64, 3), 127, np.uint8)) for n in "ab"]) == []


def test_minhash_estimates_the_jaccard_index():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(5000)]
    for overlap in (0.2, 0.5, 0.8, 0.95):
        words = [vocabulary[i] for i in rng.permutation(5000)[:400]]
        changed = words[: int(400 * overlap)] + [
            vocabulary[i] for i in rng.permutation(5000)[: 400 - int(400 * overlap)]
        ]
        ours, theirs = ({tuple(t[i : i + 3]) for i in range(398)} for t in (words, changed))
        exact = len(ours & theirs) / len(ours | theirs)
        estimate = similarities(signature(" ".join(words)), signature(" ".join(changed))[None])[0]
        assert abs(estimate - exact) < 0.2
    assert (signature("") == signature("")).all()


def test_saved_again_with_the_same_words_is_a_duplicate_of_the_first():
    first = scene(1)
    samples = [sample("a", first), sample("b", saved_again(first)), sample("c", scene(2)), sample("d", first)]
    assert duplicates(samples) == ["b", "d"]
    assert duplicates(reversed(samples)) == ["b", "a"]


def test_another_question_or_place_on_the_same_picture_is_none():
    picture = scene(1)
    other = sample("b", picture, question="How many metres of free table are there behind the plate and the bowl?")
    assert duplicates([sample("a", picture), other]) == []
    assert duplicates([sample("a", picture), other], DuplicateRules(images_alone=True)) == ["b"]
    marks = [sample(str(x), picture, question="Is <place:0> a mug?", places=(Point(x, 0.5),)) for x in (0.1, 0.4, 0.1)]
    assert duplicates([replace(mark, id=f"m{i}") for i, mark in enumerate(marks)]) == ["m2"]


def test_several_frames_must_all_match():
    one, two, three = scene(1), scene(2), scene(3)
    samples = [sample("a", one, two), sample("b", one, three), sample("c", one), sample("d", saved_again(one), two)]
    assert duplicates(samples) == ["d"]


def test_text_alone_is_compared_by_text():
    long = " ".join(f"word{i} and then" for i in range(60))
    almost = long.replace("word30", "another")
    texts = [sample("a", question=long), sample("b", question=almost), sample("c", question=long[: len(long) // 3])]
    assert duplicates(texts) == ["b"]


@pytest.mark.parametrize("distance", range(8))
def test_bands_miss_nothing_within_the_promised_distance(distance):
    rng = np.random.default_rng(distance)
    text = signature("the same words").tobytes()
    base = [int(x) for x in rng.integers(0, 2**63, 200)]
    prints = [MediaPrint(f"a{i}", (value,), text) for i, value in enumerate(base)]
    for i, value in enumerate(base):
        for bit in rng.permutation(64)[:distance]:
            value ^= 1 << int(bit)
        prints.append(MediaPrint(f"b{i}", (value,), text))
    found = list(find_duplicates(prints, DuplicateRules(max_distance=7)))
    assert [r.id for r in found] == [f"b{i}" for i in range(200)]
    if distance:
        assert list(find_duplicates(prints, DuplicateRules(max_distance=distance - 1))) == []


def test_prints_are_small_and_rules_are_checked():
    assert len(media_print(sample("a", scene(0))).text) == 128
    with pytest.raises(ValueError, match="max_distance 8"):
        DuplicateRules(max_distance=8)


def test_sorting_in_changes_nothing(monkeypatch):
    """The greedy rule written out, print by print, against the look-ups in bands."""
    rng = np.random.default_rng(0)
    texts = [signature(f"the question number {i} about this picture").tobytes() for i in range(3)]
    base = rng.integers(0, 2**63, 40)
    prints = []
    for i in range(600):
        value = int(base[rng.integers(40)])
        for bit in rng.permutation(64)[: rng.integers(6)]:
            value ^= 1 << int(bit)
        images = () if i % 7 == 0 else (value,) if i % 3 else (value, int(base[i % 40]))
        prints.append(MediaPrint(f"s{i}", images, texts[rng.integers(3)]))

    def covers(a, b):
        near = len(a.images) == len(b.images) and all(
            (x ^ y).bit_count() <= 6 for x, y in zip(a.images, b.images, strict=True)
        )
        ours, theirs = (np.frombuffer(one.text, "<u2") for one in (a, b))
        return near and (ours == theirs).mean() >= 0.8

    kept, expected = [], []
    for item in prints:
        twin = next((other for other in kept if covers(other, item)), None)
        if twin is None:
            kept.append(item)
        else:
            expected.append((item.id, twin.id))
    assert len(expected) > 200
    for waiting in (1, 7, 100, 2048):
        monkeypatch.setattr("gemvlm.curation.duplicates.WAITING", waiting)
        found = list(find_duplicates(prints))
        assert [(r.id, r.detail.split("as ")[1].split(",")[0].strip("'")) for r in found] == expected


def test_a_rejection_comes_before_the_next_print_is_asked_for():
    asked = []

    def prints():
        for name in "abc":
            asked.append(name)
            yield MediaPrint(name, (5,), signature("same").tobytes())

    assert [(r.id, "".join(asked)) for r in find_duplicates(prints())] == [("b", "ab"), ("c", "abc")]
