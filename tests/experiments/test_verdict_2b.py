"""The experiment at the paper's size: its plan from sizes alone, and a dry run with tiny tensors as published."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from gemvlm.curation.encode import Codec, encode
from gemvlm.experiments import get, shared
from gemvlm.experiments.execute import carry_out, is_finished
from gemvlm.experiments.experiment import Experiment, Task
from gemvlm.experiments.experiment import TestSet as HeldOut
from gemvlm.experiments.forgetting import finished_forgetting
from gemvlm.experiments.mechanism import finished_probes
from gemvlm.experiments.plan import budget_table, planned
from gemvlm.experiments.report import write_report
from gemvlm.experiments.shared import Given, prepare
from gemvlm.model.weights import published_autoencoder
from gemvlm.recipes import held_out
from gemvlm.recipes.recipe import DEVELOPMENT_SEED, TEST_SEED, TabletopData
from gemvlm.recipes.small import LESSONS
from gemvlm.sample import Sample
from gemvlm.shards import write_shards

PUBLISHED = Path(__file__).parents[1] / "recipes" / "conftest.py"


@cache
def published_layouts() -> ModuleType:
    """What builds tiny folders as Qwen and Sana publish theirs."""
    spec = importlib.util.spec_from_file_location("published_layouts", PUBLISHED)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(experiment: Experiment) -> Experiment:
    base = published_layouts().tiny(experiment.base)
    stages = tuple(
        replace(stage, at_once=None, turns_per_sample=min(stage.turns_per_sample, 2)) for stage in base.stages
    )
    data = TabletopData(scenes=3, views_per_scene=1, size=(96, 96), turns_per_family=1, families=LESSONS)
    return replace(
        experiment,
        base=replace(base, data=data, stages=stages),
        arms=("text", "depth", "shuffled", "regression"),
        seeds=(0,),
        contrasts=experiment.contrasts[:2],
        rates=(1.0,),
        development=HeldOut("in_distribution", 2, 2, DEVELOPMENT_SEED + 10_000),
        tests=(HeldOut("in_distribution", 2, 2, TEST_SEED),),
        probe_scenes=4,
    )


def test_the_plan_names_trainings_operations_and_hours_of_a_gpu() -> None:
    experiment = get("verdict_2b")
    costs = {cost.name: cost for cost in planned(experiment)}
    assert set(costs) == {*experiment.arms, "pilot of text", "pilot of depth"}  # published parts need no stage 0
    assert costs["text_long"].operations == costs["depth"].operations > costs["text"].operations
    assert costs["text_long"].steps > costs["text"].steps and costs["depth"].operations > 1e18
    assert costs["detached"].operations == pytest.approx(costs["depth"].operations, rel=0.01)
    table = budget_table(experiment, "h200-141gb")
    runs = sum(cost.count for cost in costs.values())
    assert len(list(experiment.tasks())) == runs and f"{runs:>6}" in table.splitlines()[-2]
    assert "hours of one h200-141gb" in table and "does not fit" not in table
    assert "does not fit" in budget_table(experiment, "rtx4090-24gb")
    with pytest.raises(ValueError, match="unknown GPU"):
        budget_table(experiment, "abacus")


def test_a_base_that_packs_or_counts_epochs_is_refused() -> None:
    experiment = get("verdict_2b")
    with pytest.raises(ValueError, match="counts epochs or packs samples"):
        replace(experiment, base=replace(experiment.base, epochs=1.0))
    with pytest.raises(ValueError, match=r"its base has 2 stages .* needs 3 stages \(1 to 3\)"):
        replace(experiment, base=replace(experiment.base, stages=experiment.base.stages[1:]))


def test_there_is_no_stage_0_and_untaught_families_are_never_shown() -> None:
    experiment = get("verdict_2b")
    assert not experiment.pretrains and all(task.arm is not None for task in experiment.tasks())
    shown = experiment.base.stages[-1].families
    assert not set(experiment.untaught) & set(shown or ()) and set(experiment.primary) <= set(shown or ())


def test_given_weights_are_refused_where_nothing_begins_with_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="begins with random weights; leave it out"):
        prepare(get("verdict_debug"), tmp_path, Given(start=("qwen=x",)))
    with pytest.raises(ValueError, match="no such folder"):
        prepare(get("verdict_2b"), tmp_path / "run", Given(data=tmp_path / "missing"))


def test_arms_go_on_with_the_set_that_they_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "check_place", lambda *_: None)
    monkeypatch.setattr(shared, "test_samples", lambda *_: [])
    monkeypatch.setattr(shared, "look_samples", lambda *_: [])
    for name in ("one", "other"):
        write_shards([Sample(name, (), (), "s", "t")], tmp_path / name)
    experiment = get("verdict_2b")
    for _ in range(2):
        prepare(experiment, tmp_path / "run", Given(data=tmp_path / "one"))
    fewer = replace(experiment, name="fewer", arms=("text", "depth"), contrasts=experiment.contrasts[:1], seeds=(7,))
    prepare(fewer, tmp_path / "run", Given(data=tmp_path / "one"))  # what the two share is alike
    with pytest.raises(ValueError, match="give the same --data, --teacher and recipes as before"):
        prepare(experiment, tmp_path / "run", Given(data=tmp_path / "other"))
    with pytest.raises(ValueError, match="give the same --data, --teacher and recipes as before"):
        prepare(replace(experiment, curve_every=7), tmp_path / "run", Given(data=tmp_path / "one"))


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Experiment, Path]]:
    out = tmp_path_factory.mktemp("verdict-2b")
    experiment = tiny(get("verdict_2b"))
    qwen, sana = published_layouts().write_parts(out / "published", experiment.base.model)
    given = Given(start=(f"qwen={qwen}", f"sana={sana}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "FITTED_SCENES", 3)
        prepare(experiment, out / "run", given)
    codec = Codec.of(experiment.base.model, published_autoencoder(sana), "depth", (None, None))
    encode(out / "run" / "data", codec, show_progress=False)
    for task in experiment.tasks():
        assert carry_out(task, experiment, out / "run", "cpu", given=given)
    yield experiment, out / "run"


@pytest.mark.slow
def test_every_arm_goes_from_published_parts_to_scores(dry_run: tuple[Experiment, Path]) -> None:
    experiment, out = dry_run
    assert all(is_finished(task, experiment, out) for task in experiment.tasks())
    assert not (out / "seed-0" / "stage-0").exists()
    card = json.loads((Task("regression", 0).folder(out) / "final" / "gem.json").read_text())
    assert card["model"]["generator"]["kind"] == "regression"
    page = write_report(experiment, out).read_text(encoding="utf-8")
    assert "Everything is finished" in page and "general" in page


@pytest.mark.slow
def test_what_the_given_weights_know_stands_beside_every_arm(dry_run: tuple[Experiment, Path]) -> None:
    experiment, out = dry_run
    forgetting, probes = finished_forgetting(experiment, out), finished_probes(experiment, out)
    assert set(forgetting) == set(probes) == {"start", *experiment.arms}
    assert set(forgetting["start"][0]) == {"caption", "text_only", "general"}
