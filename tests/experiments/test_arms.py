"""Arms differ in what they say they differ in, and in nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from gemvlm.curation.depth_teacher import FunctionTeacher
from gemvlm.data.collate import TurnSampler
from gemvlm.depth_map import DepthMap
from gemvlm.experiments import get
from gemvlm.experiments.altered import GRID, GRID_FAMILY, Alteration, Altered, labelled
from gemvlm.experiments.arm import ARMS, get_arm, matchings, recipe_of
from gemvlm.model.gem import Gem
from gemvlm.recipes.data import ForAltered
from gemvlm.sample import Frame, Sample, Turn
from gemvlm.shards import StoredFrame

BASE = get("verdict_debug").base


def scene(number: int, size: int = 12) -> Sample:
    depth = DepthMap.from_values(np.full((size, size), 1.0 + number, np.float32))
    frame = Frame(np.zeros((size, size, 3), np.uint8), depth)
    return Sample(f"s{number}", frames=(frame,), turns=(), scene=f"scene{number // 2}", source="test")


SAMPLES = [scene(number) for number in range(8)]


def test_another_scenes_depth_comes_from_another_scene() -> None:
    altered = Altered(SAMPLES, Alteration("other_scene"), seed=0)
    for sample, found in zip(SAMPLES, altered, strict=True):
        assert found.id == sample.id and found.frames[0].image is sample.frames[0].image
        level = float(found.frames[0].depth.values[0, 0]) - 1
        assert level // 2 != int(sample.scene.removeprefix("scene"))


def test_alterations_repeat_and_depend_on_the_seed() -> None:
    first, again, other = (Altered(SAMPLES, Alteration("noise"), seed) for seed in (0, 0, 1))
    values = [altered[3].frames[0].depth.values for altered in (first, again, other)]
    assert np.array_equal(values[0], values[1]) and not np.array_equal(values[0], values[2])


def test_a_set_of_one_scene_has_no_other() -> None:
    with pytest.raises(ValueError, match="give more scenes"):
        Altered(SAMPLES[:2], Alteration("other_scene"), seed=0)[0]


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_only_a_share_of_the_samples_keeps_depth(share: float) -> None:
    many = Altered([scene(number) for number in range(400)], Alteration(share=share), seed=0)
    kept = sum(sample.frames[0].depth is not None for sample in many)
    assert abs(kept / 400 - share) < 0.08


def test_sparse_depth_is_right_where_it_is_known_and_noisy_depth_nearly() -> None:
    sparse = Altered(SAMPLES, Alteration("sparse"), 0)[5].frames[0].depth
    noisy = Altered(SAMPLES, Alteration("noisy"), 0)[5].frames[0].depth
    assert 0 < sparse.valid.sum() < 40 and (sparse.values[sparse.valid] == 6).all()
    assert 0.02 < np.abs(noisy.values / 6 - 1).mean() < 0.2


def test_a_teachers_depth_takes_the_place_of_depth_alone() -> None:
    """Frames without depth stay without: how many samples teach depth is the arm's to say, not the teacher's."""
    bare = replace(SAMPLES[1], frames=(replace(SAMPLES[1].frames[0], depth=None), *SAMPLES[2].frames))
    asked: list[int] = []

    def paint(image: np.ndarray, _: float | None) -> np.ndarray:
        asked.append(image.size)
        return np.full(image.shape[:2], 9.0, np.float32)

    teacher = FunctionTeacher("nine metres", "1", "MIT", "metric_z", paint)
    found = list(labelled([SAMPLES[0], bare, *SAMPLES[3:]], teacher))
    assert [sample.id for sample in found] == ["s0", "s1", *(f"s{n}" for n in range(3, 8))]
    maps = [frame.depth for sample in found for frame in sample.frames]
    assert maps[1] is None and len(asked) == len(maps) - 1
    assert all(depth.source == "nine metres" and (depth.values == 9).all() for depth in maps if depth is not None)
    alteration = get_arm("teacher").alteration
    assert list(Altered(found, alteration, seed=0)) == found


def test_depth_in_words_is_the_depth() -> None:
    turn = Altered(SAMPLES, Alteration(in_words=True), 0)[2].turns[-1]
    assert turn.family == GRID_FAMILY and turn.answer.split() == ["30"] * GRID**2
    shown = recipe_of(get_arm("depth_as_text"), BASE, 0).stages[-1]
    assert shown.families[GRID_FAMILY] > 1e3 * max(w for name, w in shown.families.items() if name != GRID_FAMILY)


@pytest.mark.parametrize("name", sorted(ARMS))
def test_every_arm_is_a_training_of_its_own(name: str) -> None:
    arm, recipe = get_arm(name), recipe_of(get_arm(name), BASE, seed=3)
    last, told = recipe.stages[-1], BASE.stages[-1]
    assert recipe.seed == 3 and recipe.name.endswith(name)
    assert (last.steps, last.batch_size, last.schedule) == (told.steps, told.batch_size, told.schedule)
    assert last.loss_weights["text"] == told.loss_weights["text"]
    assert ("generator" in last.learning_rates) == (arm.target is not None and not arm.frozen_generator)
    assert len(recipe.stages) == (3 if arm.target and arm.progressive else 1)
    assert not last.naming


def test_what_is_deployed_is_the_same_in_every_arm() -> None:
    """Without the supervision, which inference drops, all arms have equal keys and shapes; with it, some differ."""
    whole: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in ARMS:
        with torch.device("meta"):
            gem = Gem(recipe_of(get_arm(name), BASE, 0).model)
        whole[name] = {key: tuple(value.shape) for key, value in gem.state_dict().items()}
    deployed = {
        name: {key: shape for key, shape in shapes.items() if not key.startswith("supervision.")}
        for name, shapes in whole.items()
    }
    assert len(deployed["text"]) > 20 and all(found == deployed["text"] for found in deployed.values())
    assert whole["regression"] != whole["depth"]


def test_gaps_name_what_they_hold_equal() -> None:
    def matched(arm: str, control: str) -> tuple[str, ...]:
        return matchings(get_arm(arm), get_arm(control))

    assert matched("depth", "text") == matched("depth", "depth_as_text") == ("steps",)
    assert matched("depth", "text_long") == ("compute",)
    assert matched("depth", "shuffled") == matched("depth", "rgb") == matched("depth", "noise") == ("steps", "path")
    for other in ("regression", "detached", "depth_direct", "weight_0.3", "encoding_spectral", "frozen_generator"):
        assert matched("depth", other) == ("steps",)


def test_frames_that_were_altered_are_encoded_anew_and_others_read() -> None:
    asked: list[str] = []

    @dataclass
    class Marked:
        mark: str
        kind: str = "depth"

        def make(self, frame: Frame) -> None:
            asked.append(self.mark)

    made = ForAltered(Marked("stored"), Marked("anew"))
    frame = StoredFrame(np.zeros((12, 12, 3), np.uint8), SAMPLES[0].frames[0].depth)
    object.__setattr__(frame, "media", "ab")
    stored = [replace(sample, frames=(frame,)) for sample in SAMPLES]
    for alteration in (Alteration(), Alteration("noisy"), Alteration("other_scene"), Alteration(in_words=True)):
        made.make(Altered(stored, alteration, 0)[0].frames[0])
    assert asked == ["stored", "anew", "anew", "stored"]


def test_an_unknown_arm_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match="there are text, text_long, depth"):
        get_arm("detph")


def test_stage_0_knows_nothing_of_depth() -> None:
    first = get("verdict_nano").base.stages[0]
    assert set(first.loss_weights) == {"text", "rgb_prior"} and first.targets == ("rgb",)
    assert set(first.families) == {"describe"}


def test_depth_in_words_comes_after_all_questions_and_takes_the_place_of_none() -> None:
    """What it tells would else stand before the questions whose answer it holds."""
    stage = recipe_of(get_arm("depth_as_text"), BASE, 0).stages[-1]
    assert stage.turns_per_sample == BASE.stages[-1].turns_per_sample + 1
    turns = [
        Turn("q", "a", family, "reasoning", "text")
        for family in (GRID_FAMILY, "closer", "left_right", "closer", "point")
    ]
    for key in range(20):
        chosen = TurnSampler(3, stage.families)(turns, key)
        assert len(chosen) == 3 and chosen[-1] == 0
