"""What is looked at while a model trains: painted depth, and scores on a set that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from gemvlm.evaluation.depth_report import Pixels
from gemvlm.evaluation.run import evaluate_model
from gemvlm.figure import DepthRow, depth_panel
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.runtime import get_log
from gemvlm.sample import Sample
from gemvlm.training.checkpoint import RunState
from gemvlm.training.stage import Stage

PREVIEW_STEPS = 10

Callback = Callable[[Gem, Stage, RunState], Mapping[str, float] | None]


def depth_preview(
    samples: Sequence[Sample],
    tokenizer: PreTrainedTokenizerFast,
    card: CheckpointCard,
    folder: Path | None,
    steps: int = PREVIEW_STEPS,
) -> Callback:
    """Paints the depth of the same few scenes as training goes on, one picture file each time.

    Without a folder nothing is written: of several processes all must paint, as they hold the model together.
    """

    def preview(gem: Gem, stage: Stage, state: RunState) -> None:
        if "depth" not in stage.loss_weights or not samples:
            return
        pipeline = GemPipeline(gem, tokenizer, card)
        predictions = pipeline.depth_batch([sample.frames[0].image for sample in samples], steps=steps)
        rows = []
        for sample, prediction in zip(samples, predictions, strict=True):
            frame = sample.frames[0]
            assert frame.depth is not None
            rows.append(DepthRow(frame.image, prediction.depth.values, frame.depth.values, frame.depth.valid))
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        depth_panel(rows).save(folder / f"depth-{state.step:06d}.png")
        get_log().info("preview of step %d in %s", state.step, folder)

    return preview


def test_scores(
    test: Sequence[Sample],
    fitted: Sequence[Sample],
    tokenizer: PreTrainedTokenizerFast,
    card: CheckpointCard,
    steps: int = PREVIEW_STEPS,
) -> Callback:
    """Numbers for the log: `test/FAMILY` (share right), `test/blind/FAMILY` (the best answer without looking, fitted on
    `fitted`) and `test/abs_rel` (depth, aligned, object pixels where they are known). Scenes must differ from those."""

    def scores(gem: Gem, stage: Stage, state: RunState) -> Mapping[str, float]:
        found = evaluate_model(GemPipeline(gem, tokenizer, card), test, fitted, steps=steps)
        rows = [row for row in found.questions.rows if row.subset == "all"]
        numbers = {f"test/{row.family}": row.score.mean for row in rows}
        numbers |= {f"test/blind/{row.family}": row.best_baseline[1] for row in rows}
        if found.depth is not None and "depth" in stage.loss_weights:
            pixels: Pixels = "objects" if "model" in found.depth.methods("objects", "aligned") else "all"
            numbers["test/abs_rel"] = found.depth.mean("model", pixels, "aligned").mean
        return numbers

    return scores
