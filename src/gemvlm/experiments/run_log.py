"""What a run has spent after each line of its log that counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemvlm.training.metrics import read_metrics
from gemvlm.training.stage import Stage

OPERATIONS = "operations_per_sample"
LOG_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class Mark:
    """`operations` are floating-point operations and `seconds` those of training, from the run's first step on."""

    step: int
    operations: float
    seconds: float


def marks(folder: Path, stages: Sequence[Stage]) -> list[Mark]:
    """The beginning, then a mark for each counted line of `stages`, which stands for the steps since the one before."""
    batch = {stage.name: stage.batch_size for stage in stages}
    found = [Mark(0, 0.0, 0.0)]
    for line in read_metrics(folder / LOG_FILE):
        if line["stage"] in batch and OPERATIONS in line:
            last = found[-1]
            samples = (line["step"] - last.step) * batch[line["stage"]]
            found.append(
                Mark(
                    line["step"],
                    last.operations + line[OPERATIONS] * samples,
                    last.seconds + samples / line["samples_per_s"],
                )
            )
    return found


def whole(folder: Path, stages: Sequence[Stage]) -> Mark:
    """The last mark. ValueError of a log that counts nothing, or not to the last step."""
    end, steps = marks(folder, stages)[-1], sum(stage.steps for stage in stages)
    if end.step != steps:
        raise ValueError(f"{folder / LOG_FILE}: counts operations up to step {end.step} of {steps}; run the task again")
    return end
