"""What would waste a run is refused, reported or survived."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from gemvlm.batch import Batch
from gemvlm.model.gem import Gem
from gemvlm.training import tensor_files
from gemvlm.training.checkpoint import STATE_FILE, DiskFullError
from gemvlm.training.loop import FINAL, NONFINITE, Stopped
from gemvlm.training.metrics import read_metrics
from gemvlm.training.stage import LoraConfig, Stage

Usage = namedtuple("Usage", "total used free")


def stopper(step: int, number: int = signal.SIGTERM) -> Callable[..., None]:
    def stop(gem: Gem, stage: Stage, state: Any) -> None:
        if state.step == step:
            os.kill(os.getpid(), number)

    return stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends(
    number: int, code: int, workshop: Any, stage_of: Any, assert_same_run: Any, tmp_path: Path
) -> None:
    stages = (stage_of(3, 6, ema=0.9),)
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        workshop.train(tmp_path / "run", stages, [stopper(3, number)], callback_every=1, checkpoint_every=100)
    assert stopped.value.code == code and signal.getsignal(number) == before
    assert [path.name for path in (tmp_path / "run").glob("step-*")] == ["step-4"]
    _, gem = workshop.train(tmp_path / "run", stages)
    _, other = workshop.train(tmp_path / "whole", stages)
    assert_same_run(tmp_path / "run", gem, tmp_path / "whole", other)


def begun(workshop: Any, folder: Path, stages: Any, **options: Any) -> None:
    assert workshop.train(folder, stages, minutes=0.0, **options)[0] is False


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(workshop: Any, stage_of: Any, tmp_path: Path) -> None:
    stages = (stage_of(1, 3), stage_of(3, 2))
    begun(workshop, tmp_path, stages, facts={"recipe": "small", "data": "1f"})
    same = {"facts": {"recipe": "small", "data": "1f"}, "minutes": 0.0}

    def refused(told: str, workshop: Any = workshop, stages: Any = stages, **options: Any) -> None:
        with pytest.raises(ValueError, match=rf"step-1 belongs to another run: {told}.*; train into another folder"):
            workshop.train(tmp_path, stages, **{**same, **options})

    refused("data is '1f' there, '2e' here", facts={"recipe": "small", "data": "2e"})
    refused("recipe is 'small' there, 'large' here", facts={"recipe": "large", "data": "1f"})
    refused(r"stages: \['1-connector', '3-everything'\] there, \['1-connector'\] here", stages=stages[:1])
    faster = replace(stages[0], learning_rates={"connector": 7.0})
    refused(r"1-connector.learning_rates.connector is 0.001 there, 7.0 here", stages=(faster, stages[1]))
    larger = replace(workshop.config, shift=3.0)
    refused("model.shift is 1.0 there, 3.0 here", workshop=replace(workshop, config=larger))
    later = replace(stages[1], clip=0.1)  # has not begun
    begun(workshop, tmp_path, (replace(stages[0], at_once=1), later), facts=same["facts"])


def test_a_damaged_checkpoint_is_named(workshop: Any, stage_of: Any, tmp_path: Path) -> None:
    stages = (stage_of(1, 4),)
    begun(workshop, tmp_path, stages)
    state = tmp_path / "step-1" / STATE_FILE
    fields = json.loads(state.read_text())
    state.write_text(json.dumps({**fields, "identity": None}))
    with pytest.raises(ValueError, match="step-1: written by an older gemvlm"):
        workshop.train(tmp_path, stages)
    state.write_text(json.dumps(fields)[:-9])
    with pytest.raises(ValueError, match=r"state.json: not readable .*remove step-1, and the run goes on"):
        workshop.train(tmp_path, stages)
    state.write_text(json.dumps(fields))
    weights = tmp_path / "step-1" / "optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"step-1: optimizer is not readable .*remove this checkpoint"):
        workshop.train(tmp_path, stages)


def test_other_data_are_refused(workshop: Any, stage_of: Any, tmp_path: Path) -> None:
    stages = (stage_of(1, 4),)
    begun(workshop, tmp_path, stages)
    with pytest.raises(ValueError, match=r"the state belongs to plan .* data, seed, weights"):
        replace(workshop, samples=workshop.samples[:5]).train(tmp_path, stages)


def test_a_full_disk_is_told_and_the_run_goes_on(
    workshop: Any, stage_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, calls = shutil.disk_usage, []

    def nearly_full(path: Path) -> Any:
        calls.append(path)
        return Usage(100, 99, 1) if len(calls) == 2 else real(path)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    finished, _ = workshop.train(tmp_path, (stage_of(1, 6),), checkpoint_every=2)
    assert finished and len(calls) == 4
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-2", "step-6"]
    assert "step-4 was not written: it needs" in caplog.text and "step-2 is untouched: make room" in caplog.text


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device (code 28)")]
)
def test_a_disk_that_fills_while_writing_keeps_the_checkpoint_before(
    error: Exception, workshop: Any, stage_of: Any, assert_same_run: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    stages, save, calls = (stage_of(1, 6),), tensor_files.save_file, []

    def full(*arguments: Any, **named: Any) -> None:
        calls.append(arguments)
        if len(calls) > 3:
            raise error
        save(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(tensor_files, "save_file", full)
        with pytest.raises(DiskFullError, match=r"step-6 was not written: .*No space left.*; step-2 is untouched"):
            workshop.train(tmp_path / "run", stages, checkpoint_every=2)
    assert [path.name for path in (tmp_path / "run").glob("step-*")] == ["step-2"]
    _, gem = workshop.train(tmp_path / "run", stages)
    _, other = workshop.train(tmp_path / "whole", stages)
    assert_same_run(tmp_path / "run", gem, tmp_path / "whole", other)


def test_one_step_without_numbers_is_left_out(workshop: Any, stage_of: Any, tmp_path: Path) -> None:
    """The others are as if that step had been a step of rate zero; its samples are in a file."""
    poisoned = replace(workshop)
    inner, seen = workshop.stream, []

    class Poisoned:
        def __init__(self, stage: Stage) -> None:
            self.inner = inner(stage)

        def __next__(self) -> Batch:
            batch = next(self.inner)
            seen.append(batch.sample_ids)
            return batch if len(seen) != 3 else replace(batch, pixel_values=batch.pixel_values * float("nan"))

        def state(self) -> Any:
            return self.inner.state()

        def resume(self, state: Any) -> None:
            self.inner.resume(state)

    object.__setattr__(poisoned, "stream", lambda stage, **options: Poisoned(stage))
    finished, gem = poisoned.train(tmp_path, (stage_of(3, 5),), log_every=1)
    assert finished and all(bool(p.isfinite().all()) for p in gem.parameters())
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 1]
    assert ["loss/text" in line for line in lines] == [True, True, False, True, True]
    (noted,) = [json.loads(line) for line in (tmp_path / NONFINITE).read_text().splitlines()]
    assert noted["step"] == 3 and noted["samples"] == list(seen[2]) and "loss/text" in noted["bad"]


def test_micro_batches_add_up_to_the_step(mixed_workshop: Any, stage_of: Any, tmp_path: Path) -> None:
    """Of samples with and without image and depth, each loss is the mean over the step's tokens or targets."""
    curves = []
    for at_once in (None, 3, 1):
        folder = tmp_path / str(at_once)
        mixed_workshop.train(folder, (stage_of(3, 4, batch_size=6, at_once=at_once),), log_every=1)
        curves.append([(line["loss/text"], line["loss/depth"]) for line in read_metrics(folder / "metrics.jsonl")])
    for curve in curves[1:]:
        assert [pytest.approx(pair, rel=1e-3) for pair in curve] == curves[0]


def test_an_average_ends_in_the_weights(workshop: Any, stage_of: Any, tmp_path: Path) -> None:
    """w̄ after each step by the definition, from the weights that the callbacks see."""
    seen: list[torch.Tensor] = []

    def note(gem: Gem, stage: Stage, state: Any) -> None:
        seen.append(gem.supervision.connector.enter.weight.detach().clone())

    start = workshop.gem().supervision.connector.enter.weight.detach().clone()
    _, plain = workshop.train(tmp_path / "plain", (stage_of(1, 4),), [note], callback_every=1)
    average = start
    for step, weight in enumerate(seen):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    _, gem = workshop.train(tmp_path / "ema", (stage_of(1, 4, ema=0.5),))
    assert torch.allclose(gem.supervision.connector.enter.weight, average, atol=1e-6)
    assert not torch.equal(gem.supervision.connector.enter.weight, plain.supervision.connector.enter.weight)


def test_adapters_stop_and_go_on(workshop: Any, stage_of: Any, assert_same_run: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    lora = LoraConfig(rank=2, alpha=4.0, layers={"language": ("q_proj", "v_proj")}, dropout=0.1)
    stages = stage_of(3, 4, lora=lora), stage_of(1, 2)
    with pytest.raises(Stopped):
        workshop.train(tmp_path / "run", stages, [stopper(2)], callback_every=1)
    _, gem = workshop.train(tmp_path / "run", stages)
    _, other = workshop.train(tmp_path / "whole", stages)
    assert_same_run(tmp_path / "run", gem, tmp_path / "whole", other)
    assert not [name for name in (tmp_path / "run" / FINAL).iterdir() if "adapter" in name.name]
