"""Policies on the arms of a verdict: what each begins with and learns from, what their gaps say, and one whole run."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemvlm.__main__ import main
from gemvlm.evaluation.rollout.episode import Episode
from gemvlm.evaluation.rollout_table import Rollouts
from gemvlm.experiments import act
from gemvlm.experiments.actions import ACTIONS_NANO, ActionTask
from gemvlm.experiments.actions_report import action_gaps, said, write_action_report
from gemvlm.experiments.experiment import Contrast
from gemvlm.model.action_expert import ExpertConfig
from gemvlm.recipes.debug import DEBUG
from gemvlm.recipes.run import train_recipe
from gemvlm.recipes.vla import on
from gemvlm.training.loop import FINAL, Run

needs_metaworld = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None, reason="needs metaworld: pip install 'gemvlm[worlds]'"
)
STARTS = 60


def played(rates: Mapping[str, float], seeds: int = 3) -> dict[tuple[str, int], dict[int, Rollouts]]:
    """Policies that succeed at a start with their rate, plus how easy the start is for all of them."""
    rng = np.random.default_rng(3)
    easy = rng.normal(0, 0.2, STARTS)
    found: dict[tuple[str, int], dict[int, Rollouts]] = {}
    for arm, rate in rates.items():
        for seed in range(seeds):
            luck = rng.random(STARTS)
            episodes = [
                Episode(f"w/{i}/0", "w", i, 0, bool(luck[i] < rate + easy[i]), 1, None, None, 0.0, "")
                for i in range(STARTS)
            ]
            found.setdefault((arm, 10), {})[seed] = Rollouts(Path(), {}, episodes)
    return found


def gap(rates: Mapping[str, float]):
    one = replace(ACTIONS_NANO, contrasts=ACTIONS_NANO.contrasts[:1], demonstrations=(10,))
    (found,) = action_gaps(one, played(rates))
    (corrected,) = action_gaps(ACTIONS_NANO, played(rates))  # of six, were all of them played
    assert corrected.p_value >= found.p_value and corrected.difference.detectable >= found.difference.detectable
    return found


def test_every_policy_of_a_seed_learns_from_the_same_demonstrations_and_seeds_from_others() -> None:
    parts = {
        (task.seed, task.demonstrations): ACTIONS_NANO.parts_of(task)
        for task in ACTIONS_NANO.tasks()
        if task.arm == "depth"
    }
    assert parts[0, 5] == [0] and parts[2, 5] == [2] and parts[2, 10] == [2, 3]
    assert sorted(parts[1, 25]) == [0, 1, 2, 3, 4]
    assert len(list(ACTIONS_NANO.tasks())) == 3 * 3 * 4


def test_only_the_joint_arm_paints_and_nothing_else_differs() -> None:
    depth, joint, text = (ACTIONS_NANO.recipe_of(ActionTask(arm, 1, 5)) for arm in ("depth", "joint", "text"))
    assert joint.paints and not depth.paints
    assert replace(depth, name="") == replace(text, name="")
    assert joint.stages[0].steps == depth.stages[0].steps
    assert set(joint.stages[0].learning_rates) - set(depth.stages[0].learning_rates) == {"connector", "generator"}


def test_a_planted_effect_is_found_and_an_absent_one_is_not() -> None:
    found = gap({"text": 0.4, "depth": 0.75})
    assert "Having generated depth helps to act" in said(found) and found.difference.interval.low > 0
    assert "inconclusive" in said(gap({"text": 0.5, "depth": 0.5}))
    assert "The opposite" in said(gap({"text": 0.65, "depth": 0.3}))


def test_a_control_that_always_or_never_succeeds_shows_nothing() -> None:
    assert "no gap could show" in said(gap({"text": 0.05, "depth": 0.5}))
    assert "no gap could show" in said(gap({"text": 0.95, "depth": 0.5}))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"demonstrations": (7,)}, "multiples of 5"),
        ({"demonstrations": (30,)}, "up to 25"),
        ({"contrasts": (Contrast("depth", "rgb", ""),)}, "rgb compared but not among the arms"),
    ],
)
def test_what_could_not_be_run_is_refused(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(ACTIONS_NANO, **change)


def test_without_the_arms_of_the_verdict_the_command_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", "actions_nano", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "seed-0/depth" in told and "gemvlm experiment verdict_nano" in told
    assert main(["experiment", "actions_nano", "--out", str(tmp_path), "--data", "x"]) == 2
    assert "records its own demonstrations" in capsys.readouterr().err
    assert main(["experiment", "actions_nano", "--plan"]) == 0
    assert "36 policies, 36 to do" in capsys.readouterr().out


@pytest.mark.slow
@needs_metaworld
def test_policies_begin_with_the_arms_learn_play_and_are_reported(tmp_path: Path) -> None:
    stages = tuple(replace(stage, steps=2) for stage in DEBUG.stages)
    train_recipe(replace(DEBUG, stages=stages), tmp_path / "gem", None, "cpu", Run(tmp_path / "gem"))
    for seed in (0, 1):
        for arm in ("text", "depth"):
            shutil.copytree(tmp_path / "gem" / FINAL, tmp_path / f"seed-{seed}" / arm / FINAL)
    size = ExpertConfig(
        action=4, state=4, horizon=16, width=64, depth=2, heads=2, kv_heads=1, registers=2,
        conditioning="layer_inputs", layers=(0, 1), time_scale=1000.0, ffn_multiple_of=32,
    )  # fmt: skip
    nano = ACTIONS_NANO.recipe
    joint = replace(nano.stages[0], steps=2, batch_size=2)
    recipe = on(
        DEBUG, name="actions_debug", stages=(joint,), expert=size, backbone_gradient=1.0, held_out=0.0,
        embodiment=nano.embodiment, normalisation=nano.normalisation, flow_steps=2, executed=8,
    )  # fmt: skip
    experiment = replace(
        ACTIONS_NANO,
        name="actions_debug",
        recipe=recipe,
        worlds=("metaworld/reach-v3",),
        recorded=5,
        demonstrations=(5,),
        trials=2,
        seeds=(0, 1),
    )
    act.prepare(experiment, tmp_path)
    for task in experiment.tasks():
        assert act.carry_out(task, experiment, tmp_path, "cpu")
    assert not act.work_of(experiment, tmp_path).left()
    page = write_action_report(experiment, tmp_path).read_text(encoding="utf-8")
    assert "Nothing." in page and "nearest neighbour" in page
