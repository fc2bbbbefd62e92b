"""One loop for every stage: the same numbers after any interruption, and nothing computed that no loss needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gemvlm.batch import IGNORE
from gemvlm.model.backbone import Backbone, BackboneOutput
from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.runtime import detect
from gemvlm.training.checkpoint import RunState, latest_checkpoint
from gemvlm.training.loop import FINAL, NONFINITE
from gemvlm.training.metrics import read_metrics
from gemvlm.training.optimizer import GroupOptimizer
from gemvlm.training.stage import Stage
from gemvlm.training.step import Outcome, train_step


class Killed(BaseException):
    """Not an Exception: nothing on the way may catch it and tidy up."""


def killer(step: int) -> Callable[[Gem, Stage, RunState], None]:
    def kill(gem: Gem, stage: Stage, state: RunState) -> None:
        if state.step == step:
            raise Killed

    return kill


@pytest.fixture(scope="module")
def two_stages(stage_of: Callable[..., Stage]) -> tuple[Stage, ...]:
    return stage_of(0), stage_of(3)


@pytest.fixture(scope="module")
def undisturbed(workshop: Any, two_stages: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Gem]:
    folder = tmp_path_factory.mktemp("undisturbed")
    finished, gem = workshop.train(folder, two_stages)
    assert finished
    return folder, gem


@pytest.mark.parametrize("step", [3, 7, 10, 13])
def test_a_killed_run_goes_on_bit_for_bit(
    step: int, workshop: Any, two_stages: Any, undisturbed: Any, assert_same_run: Any, tmp_path: Path
) -> None:
    """Killed before the first checkpoint, in the first stage, at the boundary before its checkpoint, in the second."""
    with pytest.raises(Killed):
        workshop.train(tmp_path, two_stages, [killer(step)], callback_every=1)
    finished, gem = workshop.train(tmp_path, two_stages)
    assert finished
    assert_same_run(tmp_path, gem, *undisturbed)


@pytest.mark.parametrize("save", [1, 2, 4])
def test_a_checkpoint_killed_while_it_is_written_is_never_loaded(
    save: int,
    workshop: Any,
    two_stages: Any,
    undisturbed: Any,
    assert_same_run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, written = CheckpointCard.write, 0

    def write_or_die(card: CheckpointCard, folder: Path) -> None:
        nonlocal written
        written += 1
        if written == save:
            raise Killed
        write(card, folder)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(CheckpointCard, "write", write_or_die)
        workshop.train(tmp_path, two_stages)
    draft = tmp_path / f"step-{5 * save}.draft"
    assert (draft / "model.safetensors").is_file()
    newest = latest_checkpoint(tmp_path)
    assert (newest.name if newest else None) == (f"step-{5 * (save - 1)}" if save > 1 else None)
    finished, gem = workshop.train(tmp_path, two_stages)
    assert finished and not list(tmp_path.glob("*.draft"))
    assert_same_run(tmp_path, gem, *undisturbed)


def test_a_run_that_is_out_of_time_goes_on_bit_for_bit(
    workshop: Any, stage_of: Any, assert_same_run: Any, tmp_path: Path
) -> None:
    """Stopped after every step, between logged steps too."""
    stages = stage_of(0, 3), stage_of(3, 4)
    options = {"log_every": 2, "checkpoint_every": 100}
    _, undisturbed = workshop.train(tmp_path / "undisturbed", stages, **options)
    calls = 1
    while not (outcome := workshop.train(tmp_path / "run", stages, minutes=0.0, **options))[0]:
        calls += 1
        assert not (tmp_path / "run" / FINAL).exists()
    assert calls == 6  # the end of a stage runs on into the next, and the end of the last is the end
    assert_same_run(tmp_path / "run", outcome[1], tmp_path / "undisturbed", undisturbed)


def test_a_stage_may_be_shortened_to_what_it_has_done_but_not_below(
    workshop: Any, stage_of: Any, assert_same_run: Any, tmp_path: Path
) -> None:
    long, last = stage_of(0, 9), stage_of(3, 2)
    for _ in range(3):
        workshop.train(tmp_path / "run", (long, last), minutes=0.0, log_every=1)
    with pytest.raises(ValueError, match=r"step-3: 3 steps of stage '.*' are done, the recipe has 2; remove"):
        workshop.train(tmp_path / "run", (replace(long, steps=2), last))
    shortened = replace(long, steps=3), last
    _, undisturbed = workshop.train(tmp_path / "undisturbed", shortened, log_every=1)
    finished, gem = workshop.train(tmp_path / "run", shortened, log_every=1)
    assert finished
    assert_same_run(tmp_path / "run", gem, tmp_path / "undisturbed", undisturbed)


def test_a_stage_whose_end_makes_its_weights_is_not_shortened_to_where_it_is(
    workshop: Any, stage_of: Any, tmp_path: Path
) -> None:
    """Else the averages, or the adapters, would be lost without a word."""
    long = stage_of(3, 4, ema=0.5)
    workshop.train(tmp_path, (long,), minutes=0.0)
    with pytest.raises(ValueError, match=r"step-1: .* shortened to the 1 steps .* give it 2 steps or more"):
        workshop.train(tmp_path, (replace(long, steps=1),))
    finished, _ = workshop.train(tmp_path, (replace(long, steps=2),))
    assert finished


def test_a_run_killed_before_its_final_checkpoint_still_writes_it(
    workshop: Any,
    two_stages: Any,
    undisturbed: Any,
    assert_same_run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = CheckpointCard.write

    def die_at_last(card: CheckpointCard, folder: Path) -> None:
        if card.stage == "final":
            raise Killed
        write(card, folder)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(CheckpointCard, "write", die_at_last)
        workshop.train(tmp_path, two_stages)
    assert not (tmp_path / FINAL).exists()
    finished, gem = workshop.train(tmp_path, two_stages)
    assert finished
    assert_same_run(tmp_path, gem, *undisturbed)
    card, other = (CheckpointCard.read(folder / FINAL) for folder in (tmp_path, undisturbed[0]))
    assert replace(card, versions={}) == replace(other, versions={})
    assert (card.stage, card.step) == ("final", 20)


def test_a_finished_run_is_left_as_it_is(workshop: Any, two_stages: Any, undisturbed: Any) -> None:
    folder, gem = undisturbed
    before = {path: path.stat().st_mtime_ns for path in (folder / FINAL).iterdir()}
    finished, again = workshop.train(folder, two_stages)
    assert finished and {path: path.stat().st_mtime_ns for path in (folder / FINAL).iterdir()} == before
    assert all(torch.equal(a, b) for a, b in zip(gem.parameters(), again.parameters(), strict=True))


def test_only_the_newest_checkpoints_are_kept(undisturbed: Any) -> None:
    """C3: the release keeps every one."""
    assert sorted(path.name for path in undisturbed[0].glob("step-*")) == ["step-15", "step-20"]


def test_checkpoints_name_what_was_trained_so_far(workshop: Any, stage_of: Any, tmp_path: Path) -> None:
    workshop.train(tmp_path, (stage_of(1, 1), stage_of(2, 1)), log_every=1, checkpoint_every=1)
    cards = [CheckpointCard.read(tmp_path / name) for name in ("step-1", "step-2", FINAL)]
    assert [card.trained_groups for card in cards] == [("connector",), *[("connector", "generator")] * 2]
    assert [card.stage for card in cards] == ["1-connector", "2-generator", "final"]


def test_each_logged_number_is_the_mean_of_its_steps(workshop: Any, stage_of: Any, tmp_path: Path) -> None:
    workshop.train(tmp_path / "each", (stage_of(3, 4),), log_every=1, checkpoint_every=4)
    workshop.train(tmp_path / "pairs", (stage_of(3, 4),), log_every=2, checkpoint_every=4)
    each, pairs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("each", "pairs"))
    assert [line["step"] for line in pairs] == [2, 4]
    for pair, (first, second) in zip(pairs, [each[:2], each[2:]], strict=True):
        for name in ("loss/text", "loss/depth", "grad_norm/generator"):
            assert pair[name] == pytest.approx((first[name] + second[name]) / 2, rel=1e-6)


def test_losses_that_are_no_numbers_stop_the_run_before_they_are_saved(
    workshop: Any, stage_of: Any, tmp_path: Path
) -> None:
    def poison(gem: Gem, stage: Stage, state: RunState) -> None:
        if state.step == 6:
            with torch.no_grad():
                next(iter(gem.parameter_groups()["connector"].values())).fill_(float("nan"))

    told = r"stage '1-connector', step 10 of the run: weights became NaN or infinite and are not saved"
    with pytest.raises(FloatingPointError, match=told):
        workshop.train(tmp_path, (stage_of(1),), [poison], callback_every=1)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-5"]
    told = r"step 8: loss/depth.* NaN or infinite; the step was left out, as 1 before it.*last samples \['sample-\d'"
    with pytest.raises(FloatingPointError, match=told):
        workshop.train(tmp_path, (stage_of(1),), [poison], callback_every=1, most_skipped=1)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-5"]
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [5]
    skipped = [json.loads(line) for line in (tmp_path / NONFINITE).read_text().splitlines()]
    assert [line["step"] for line in skipped] == [7, 8]
    assert all(len(line["samples"]) == 2 and "loss/depth" in line["bad"] for line in skipped)


@pytest.mark.parametrize("number", [1, 2])
def test_stages_of_depth_compute_neither_logits_nor_gradients_of_the_backbone(
    number: int, workshop: Any, stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_logits(self: Backbone, states: torch.Tensor) -> torch.Tensor:
        raise AssertionError("logits were computed")

    monkeypatch.setattr(Backbone, "logits", no_logits)
    stage, gem = stage_of(number), workshop.gem().train()
    gem.backbone.qwen.lm_head.register_forward_hook(lambda *_: pytest.fail("the language head ran"))
    needed: list[bool] = []

    def look(module: Backbone, args: Any, out: BackboneOutput) -> None:
        assert out.states is not None
        needed.append(out.states.requires_grad)

    gem.backbone.register_forward_hook(look)
    optimizer = GroupOptimizer(gem, stage)
    before = {name: p.detach().clone() for name, p in gem.named_parameters()}
    for step in range(2):
        done = train_step(gem, stage, [next(workshop.stream(stage, step))], optimizer, step, detect("cpu"))
        assert set(done.losses) == {"depth"} and set(done.norms) == set(stage.learning_rates)
    assert needed == [False, False]
    changed = {name for name, p in gem.named_parameters() if not torch.equal(p, before[name])}
    groups = gem.parameter_groups()
    trained = {name for group in stage.learning_rates for name in groups[group]}
    assert changed and changed <= trained
    assert all({*groups[group]} & changed for group in stage.learning_rates)


def test_logits_are_computed_at_supervised_places_only(workshop: Any, stage_of: Any) -> None:
    stage, gem = stage_of(3), workshop.gem().train()
    rows: list[int] = []
    gem.backbone.qwen.lm_head.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    batch = next(workshop.stream(stage))
    train_step(gem, stage, [batch], GroupOptimizer(gem, stage), 0, detect("cpu"))
    supervised = int((batch.labels != IGNORE).sum())
    assert rows == [supervised] and 0 < supervised < len(batch.input_ids) / 2


def test_a_step_without_any_loss_changes_nothing(workshop: Any, stage_of: Any) -> None:
    """A batch without depth in a stage of depth."""
    stage, gem = stage_of(1, targets=()), workshop.gem().train()
    before = [p.detach().clone() for p in gem.parameters()]
    done = train_step(gem, stage, [next(workshop.stream(stage))], GroupOptimizer(gem, stage), 0, detect("cpu"))
    assert done == Outcome({}, {}, finite=True)
    assert all(torch.equal(p, b) for p, b in zip(gem.parameters(), before, strict=True))
