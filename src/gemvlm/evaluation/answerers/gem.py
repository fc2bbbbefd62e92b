"""A checkpoint of ours answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gemvlm.evaluation.answerers.answerer import Reply, answer_in_halves, marked_per_frame, weights_digest
from gemvlm.evaluation.answerers.media import frames_of, shown
from gemvlm.evaluation.benchmark import Benchmark, Convention, Item, Unit
from gemvlm.inference import GemPipeline

UNITS: dict[int, Unit] = {1000: "thousand", 100: "hundred"}


class GemAnswerer:
    """Greedy answers of a `GemPipeline`; the convention is the checkpoint's. A system text stands before the prompt."""

    def __init__(self, pipeline: GemPipeline, name: str) -> None:
        scale = pipeline.coordinates.scale
        if scale not in UNITS:
            raise ValueError(f"{name}: writes coordinates from 0 to {scale}; no benchmark reads that convention")
        self.pipeline, self.name = pipeline, name
        self.convention = Convention(UNITS[scale])
        self.batch_size = pipeline.batch_size
        self._weights = weights_digest(pipeline.gem)

    def describe(self) -> Mapping[str, Any]:
        card = self.pipeline.card
        identity = {
            "kind": "gem",
            "recipe": card.recipe,
            "stage": card.stage,
            "step": card.step,
            "weights": self._weights,
        }
        return {**identity, "trained_with": dict(card.versions), "decoding": "greedy"}

    def meet(self, benchmark: Benchmark, items: Sequence[Item]) -> None:
        pass

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        return answer_in_halves(items, self._answer)

    def _answer(self, items: Sequence[Item]) -> list[Reply]:
        pictures = [frames_of(item) for item in items]
        requests = [
            (
                [picture for frames in own for picture in frames],
                f"{item.system}\n{item.prompt}" if item.system else item.prompt,
            )
            for item, own in zip(items, pictures, strict=True)
        ]
        requests = [
            (own, marked_per_frame(text, [len(frames) for frames in found]))
            for (own, text), found in zip(requests, pictures, strict=True)
        ]
        limit = max(item.max_new_tokens for item in items)
        answers = self.pipeline.ask_batch(requests, max_new_tokens=limit)
        return [Reply(answer.text, frames=shown(found)) for answer, found in zip(answers, pictures, strict=True)]
