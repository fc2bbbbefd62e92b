"""A trained arm → one line per question: right or wrong, and how surprised the model is by the true answer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import Batch
from gemvlm.data.collate import Collator
from gemvlm.data.conversation import CoordinateFormat, parse
from gemvlm.data.frames import ImageConfig
from gemvlm.evaluation.scoring import score
from gemvlm.experiments.experiment import TestSet
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.model.backbone import supervised_tokens
from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.recipes.held_out import fitted_samples, held_out_samples
from gemvlm.recipes.recipe import Recipe
from gemvlm.recipes.suites import SHIFTS
from gemvlm.sample import Sample
from gemvlm.shards import MANIFEST, ShardReader, write_shards
from gemvlm.worlds.tabletop import SceneConfig

ANSWER_TOKENS = 48
AT_ONCE = 64


@dataclass(frozen=True)
class ItemScore:
    """`score` is in [0, 1]; `surprise` the mean negative log-likelihood, in nats, of the true answer's tokens."""

    id: str
    scene: str
    family: str
    headline: bool
    score: float
    surprise: float


def test_samples(test: TestSet, base: Recipe, folder: Path) -> list[Sample]:
    """The set's samples, of the families that the base recipe knows; made once, into `folder`."""
    if not (folder / MANIFEST).is_file():
        assert base.data is not None
        families = tuple(name for name in base.data.families or () if name not in ("describe", "places"))
        fitted = fitted_samples(base.data.size, families, config=SceneConfig(**base.data.scene))
        made = held_out_samples(
            fitted,
            test.scenes,
            test.per_family,
            0,
            test.first_seed,
            size=base.data.size,
            config=SceneConfig(**{**base.data.scene, **SHIFTS[test.name]}),
            families=families,
        )
        write_shards(made, draft := folder.with_name(folder.name + ".draft"))
        draft.rename(folder)
    return list(ShardReader(folder))


def measure(pipeline: GemPipeline, samples: Sequence[Sample]) -> list[ItemScore]:
    """Every question of `samples`, answered greedily and by teacher forcing. A reply that can't be read scores 0."""
    items = [(sample, turn) for sample in samples for turn in sample.turns]
    surprises = surprise(
        pipeline.gem,
        [replace(sample, turns=(turn,)) for sample, turn in items],
        pipeline.tokenizer,
        pipeline.card,
    )
    requests = [(sample.frames[0].image, pipeline.coordinates.fill(t.question, t.places)) for sample, t in items]
    found = []
    for (sample, turn), answer, nats in zip(
        items, pipeline.ask_batch(requests, max_new_tokens=ANSWER_TOKENS), surprises.tolist(), strict=True
    ):
        reply = parse(answer.text, turn.kind, turn.options, turn.unit, pipeline.coordinates)
        place = f"{sample.id}/{sample.turns.index(turn)}"
        found.append(
            ItemScore(place, sample.scene, turn.family, "headline" in turn.subsets, float(score(turn, reply)), nats)
        )
    return found


@torch.no_grad()
def surprise(
    gem: Gem, samples: Sequence[Sample], tokenizer: PreTrainedTokenizerFast, card: CheckpointCard
) -> Float64[np.ndarray, " N"]:
    """Mean negative log-likelihood of each sample's answers, in nats per token."""
    collate = Collator(tokenizer, CoordinateFormat(**card.coordinates), ImageConfig(**card.image))
    training, device = gem.training, next(gem.parameters()).device
    gem.eval()
    found = []
    for start in range(0, len(samples), AT_ONCE):
        found.append(_surprise(gem, collate(samples[start : start + AT_ONCE]).to(device)))
    gem.train(training)
    return np.concatenate(found)


def _surprise(gem: Gem, batch: Batch) -> Float64[np.ndarray, " S"]:
    states = gem.backbone(batch).states
    tokens = supervised_tokens(batch)
    logits = gem.backbone.logits(states[tokens - 1]).float()
    each = F.cross_entropy(logits, batch.labels[tokens], reduction="none").double()
    owner, count = batch.segment_ids[tokens], len(batch.lengths)
    total = torch.zeros(count, dtype=torch.float64, device=each.device).index_add(0, owner, each)
    return (total / torch.bincount(owner, minlength=count).clamp(min=1)).cpu().numpy()


def write_scores(scores: Sequence[ItemScore], path: Path) -> None:
    """One JSON line each; the file appears whole or not at all."""
    _put("".join(json.dumps(asdict(item)) + "\n" for item in scores), path)


def write_json(content: object, path: Path) -> None:
    """The file appears whole or not at all, whoever else writes it."""
    _put(json.dumps(content) + "\n", path)


def _put(text: str, path: Path) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def read_scores(path: Path) -> list[ItemScore]:
    return [ItemScore(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
