"""Make a trained run small enough to ship inside the package.

    python -m gemvlm.recipes.ship RUN/final SCORES src/gemvlm/checkpoints/nano

`SCORES` is the folder that `gemvlm evaluate` wrote for these weights in bfloat16.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from gemvlm.evaluation.depth_report import BLIND
from gemvlm.figure import loss_curves
from gemvlm.inference import load
from gemvlm.recipes.model_card import write_model_card
from gemvlm.training.checkpoint import save_checkpoint
from gemvlm.training.metrics import read_metrics

LARGEST_BYTES = 25 * 2**20


def ship(checkpoint: Path, scores: Path, target: Path) -> None:
    """Writes bfloat16 weights, the training's curve and numbers, the scores, a model card and a manifest to `target`.

    `checkpoint` lies in its run's folder, beside `metrics.jsonl`. ValueError if the result is larger than 25 MiB.
    """
    pipeline = load(checkpoint, "cpu")
    found = json.loads((scores / "scores.json").read_text(encoding="utf-8"))
    card = dataclasses.replace(pipeline.card, scores=_headlines(found))
    save_checkpoint(target, pipeline.gem, pipeline.tokenizer, card, dtype=torch.bfloat16)
    metrics = read_metrics(checkpoint.parent / "metrics.jsonl")
    (target / "training_curve.svg").write_bytes(loss_curves(metrics))
    (target / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics), encoding="utf-8")
    write_model_card(target)
    files = {path.name: _described(path) for path in sorted(target.iterdir())}
    (target / "manifest.json").write_text(json.dumps(files, indent=1) + "\n", encoding="utf-8")
    total = sum(entry["bytes"] for entry in files.values())
    if total > LARGEST_BYTES:
        raise ValueError(
            f"{target}: {total / 2**20:.1f} MiB are more than the {LARGEST_BYTES / 2**20:.0f} that may ship"
        )


def _headlines(scores: dict[str, Any]) -> dict[str, Any]:
    """The score of each family and subset and the depth of object pixels, each beside the best blind one."""
    questions = {f"{row['family']}, {row['subset']}": row["score"] | _best_blind(row) for row in scores["questions"]}
    depth = (
        {reading: scores["depth"][reading]["objects"] for reading in ("aligned", "metric")} if scores["depth"] else {}
    )
    return {
        "questions": questions,
        "depth": {reading: methods["model"] for reading, methods in depth.items()},
        "depth_blind": {reading: _best_blind_depth(methods) for reading, methods in depth.items()},
    }


def _best_blind(row: dict[str, Any]) -> dict[str, Any]:
    means = {name: found["mean"] for name, found in row["baselines"].items()}
    if not means:
        return {}
    best = max(means, key=means.__getitem__)
    return {"blind": {"name": best, "mean": means[best]}}


def _best_blind_depth(methods: dict[str, Any]) -> dict[str, Any]:
    """Of each measure that model and blind methods share; those named delta or F1 are better if higher."""
    best = {}
    for measure in methods["model"]:
        found = {name: methods[name][measure][0] for name in BLIND if measure in methods.get(name, {})}
        if found:
            pick = max if measure.startswith("delta") or measure.endswith("f1") else min
            name = pick(found, key=found.__getitem__)
            best[measure] = {"name": name, "mean": found[name]}
    return best


def _described(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


if __name__ == "__main__":
    ship(*map(Path, sys.argv[1:4]))
