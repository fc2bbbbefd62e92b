"""The benchmark of a training step: it runs, and its equality is a real assertion."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gemvlm.recipes import get
from gemvlm.recipes.data import development_samples
from gemvlm.sample import Sample

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECIPE = get("debug")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import step_at_size  # noqa: F401  so that tests can ask for it
        import training_step
    finally:
        sys.path.remove(str(BENCHMARKS))
    return training_step


@pytest.fixture(scope="module")
def samples(bench) -> list[Sample]:
    return bench.with_turns(development_samples(RECIPE.data, 4), (1, 5, 3))[:3]


@pytest.fixture(scope="module")
def case(bench, samples):
    batch, ids = bench.make_batch(RECIPE, samples)
    return bench.make_case(bench.with_special_ids(RECIPE.model, ids), batch)


def test_both_steps_share_every_parameter_and_see_the_same_tokens(bench, case):
    ours = {id(parameter) for parameter in case.gem.parameters()}
    assert {id(parameter) for parameter in case.plain.parameters()} == ours
    real = case.rows.attention_mask.bool()
    assert torch.equal(case.rows.input_ids[real], case.batch.input_ids)
    assert len(case.batch.lengths.unique()) > 1


@pytest.mark.parametrize("stage", ["stage 1", "stage 2", "stage 3"])
def test_all_variants_have_equal_losses_and_gradients(bench, case, stage):
    assert bench.check(case, stage) < bench.TOLERANCE


def test_one_perturbed_gradient_fires(bench, case):
    """Whichever parameter it is, large or small its gradient."""
    with bench.learning(case.gem, "stage 3", "ours"):
        losses = bench.step(lambda: case.gem(case.batch), torch.float32)
        found = bench.gradients(case.gem, "stage 3")
    assert bench.assert_equal(losses, found, losses, found, what="itself") == 0
    for name, gradient in found.items():
        with pytest.raises(AssertionError, match=f"gradient of {name} is off"):
            bench.assert_equal(losses, found | {name: gradient * 1.001}, losses, found, what="perturbed")
    with pytest.raises(AssertionError, match="gradients of"):
        bench.assert_equal(losses, dict(list(found.items())[1:]), losses, found, what="one missing")
    with pytest.raises(AssertionError, match="text loss differs"):
        bench.assert_equal({**losses, "text": losses["text"] * 1.001}, found, losses, found, what="perturbed")


def test_a_perturbed_step_stops_the_run(bench, case, monkeypatch):
    """One gradient of ours off by a thousandth: the check that stands before the measurement refuses."""
    weight = case.gem.supervision.connector.enter.weight
    calls = []

    def off(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient * (1 if len(calls) == 1 else 1.001)

    handle = weight.register_hook(off)
    try:
        with pytest.raises(AssertionError, match=r"ours: gradient of supervision.connector.0.weight"):
            bench.check(case, "stage 3")
    finally:
        handle.remove()


def test_the_report_names_every_comparison(bench, samples, capsys):
    bench.run(RECIPE, samples, torch.float32, repeats=1, vocabulary=5000, limit=None)
    printed = capsys.readouterr().out
    for words in ("one at a time", "matrix rate", "small DC-AE", "a vocabulary of 5000", "parts alone", *bench.GAINS):
        assert words in printed


def test_a_step_far_above_its_parts_stops_the_run(bench, capsys):
    from step_parts import report_parts

    assert report_parts({"vision": [1.0, 2.0], "decoder": [3.0]}, [4.4, 9.0], 1.25) == 1.1
    with pytest.raises(AssertionError, match=r"1\.50 x its parts"):
        report_parts({"vision": [1.0], "decoder": [3.0]}, [6.0], 1.25)


def test_the_papers_step_runs_small_through_the_same_code(bench, capsys):
    """Its own assertions say that both ways have equal losses and gradients in each stage."""
    import step_at_size

    ratios = step_at_size.run("debug", torch.device("cpu"), torch.float32, samples=3, repeats=1)
    assert set(ratios) == set(bench.STAGES)
    printed = capsys.readouterr().out
    for words in ("useful operations", "parts alone", "profile of", "matrix products"):
        assert words in printed


def test_a_difference_between_both_ways_stops_the_run(bench):
    import step_at_size

    made = step_at_size.make(step_at_size.sizes("debug"), 2, 400, torch.device("cpu"), torch.float32, recompute=False)
    moved = [step_at_size.replace(pack, labels=pack.labels.where(pack.labels < 0, 3)) for pack in made.packs]
    with pytest.raises(AssertionError, match="stage 3: text loss"):
        step_at_size.check(step_at_size.replace(made, packs=moved), "stage 3")
