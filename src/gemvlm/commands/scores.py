"""Commands that score: evaluate."""

from __future__ import annotations

from pathlib import Path

from gemvlm.commands import Device, Model


def evaluate(
    model: Model,
    *,
    out: Path,
    scenes: int = 100,
    questions: int = 100,
    depth_views: int = 50,
    steps: int = 20,
    guidance: float = 1.0,
    seed: int = 0,
    device: Device = None,
) -> None:
    """Score a model on simulated scenes that no training has seen; writes scores.json, answers.jsonl and report.html.

    Args:
        model: Checkpoint folder, or the name of a shipped model.
        out: Folder for the scores.
        scenes: Number of test scenes, each seen twice.
        questions: At most so many of each family, and as many of its shortcut-free headline.
        depth_views: Views whose generated depth is scored.
        steps: Integration steps of the depth generator.
        guidance: Of the depth generator; 1 samples what the model believes.
        seed: Of the noise that painting starts from.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.inference import load
    from gemvlm.recipes.held_out import evaluate_held_out

    pipeline = load(model, device)
    evaluate_held_out(
        pipeline,
        out,
        scenes=scenes,
        per_family=questions,
        depth_views=depth_views,
        steps=steps,
        guidance=guidance,
        seed=seed,
    )
    print(out / "report.html")
