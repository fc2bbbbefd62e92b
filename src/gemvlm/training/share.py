"""What each process learns from a micro batch, and how much of the whole step that is.

A loss is a mean over what it supervises: tokens for "text", steps of chunks for "action", targets for a kind. Over
several processes and micro batches it must stay the mean over all of them, so each batch's mean is weighted by its
share of the step's count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gemvlm.batch import IGNORE, Actions, Batch, Target
from gemvlm.model.backbone import supervised_tokens
from gemvlm.model.gem import PRIOR, target_kind
from gemvlm.model.learner import Learner

ACTION = "action"
"""The loss of what robots did; it needs the backbone's first layers only."""

FILLER = "filler"
"""The id of the sample that stands in where a process has nothing to learn."""

FILLER_LATENTS = 4
"""Rows and columns of a filler's latents."""


@dataclass(frozen=True)
class Share:
    """A micro batch as this process computes it; `weights[name]` turns its mean loss into its part of the step's."""

    batch: Batch
    weights: Mapping[str, float]


def learnable(batch: Batch) -> Batch:
    """Without targets that have no valid place: nothing can be learned from them."""
    return replace(batch, targets=tuple(target for target in batch.targets if bool(target.valid.any())))


def supervised(batch: Batch, losses: Sequence[str]) -> dict[str, int]:
    """How many tokens, targets or steps of actions each loss is a mean over."""
    kinds = [target.kind for target in batch.targets]
    steps = 0 if batch.actions is None else int(batch.actions.valid.sum())
    others = {"text": len(supervised_tokens(batch)), ACTION: steps}
    return {name: others.get(name, kinds.count(target_kind(name))) for name in losses}


def filling(ours: Mapping[str, int], everyones: Mapping[str, float]) -> str | None:
    """The loss that a filler must have for this process to run what others run, or None if it runs anyway.

    A prior's loss does not run the backbone, that of actions its first layers, every other one all of it.
    """
    reading = [name for name in ours if not name.endswith(PRIOR)]
    for names in ([name for name in reading if name != ACTION], reading, list(ours)):
        wanted = [name for name in names if everyones[name]]
        if wanted and not any(ours[name] for name in names):
            return wanted[0]
    return None


def with_filler(batch: Batch, model: Learner, loss: str) -> Batch:
    """The batch and one more sample, an image of one token, that has something for `loss` to supervise."""
    config = model.backbone.qwen.config
    vision, merge = config.vision_config, config.vision_config.spatial_merge_size
    ids = [config.vision_start_token_id, config.image_token_id, config.vision_end_token_id, config.vision_end_token_id]
    labels = [IGNORE] * 3 + ([ids[-1]] if loss == "text" else [IGNORE])
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    tokens, images = len(batch.input_ids), len(batch.image_grid_thw)
    segment = int(batch.segment_ids[-1]) + 1 if tokens else 0
    target: tuple[Target, ...] = ()
    if loss not in ("text", ACTION):
        assert model.supervision is not None
        side = FILLER_LATENTS * model.supervision.latents.factor
        picture, valid = torch.zeros(3, side, side), torch.ones(side, side, dtype=torch.bool)
        target = (Target(target_kind(loss), images, picture, valid, key=0),)
    return replace(
        batch,
        input_ids=torch.cat([batch.input_ids, torch.tensor(ids)]),
        segment_ids=torch.cat([batch.segment_ids, torch.full((4,), segment)]),
        position_ids=torch.cat([batch.position_ids, torch.arange(4).expand(3, 4)], dim=1),
        labels=torch.cat([batch.labels, torch.tensor(labels)]),
        pixel_values=_joined(batch.pixel_values, torch.zeros(merge**2, width)),
        image_grid_thw=torch.cat([batch.image_grid_thw, torch.tensor([[1, merge, merge]])]),
        spans=torch.cat([batch.spans, torch.tensor([[tokens + 1, tokens + 2]])]),
        targets=batch.targets + target,
        sample_ids=(*batch.sample_ids, FILLER),
        actions=_acting(batch.actions, segment, model) if loss == ACTION else batch.actions,
    )


def _acting(actions: Actions | None, segment: int, model: Learner) -> Actions:
    """The actions and those of one more sample: nothing is done, for a whole chunk."""
    sizes = model.config.expert
    shapes = {"state": (1, sizes.state), "chunk": (1, sizes.horizon, sizes.action)}
    more = {name: torch.zeros(shape) for name, shape in shapes.items()}
    more |= {"samples": torch.tensor([segment]), "valid": torch.ones(1, sizes.horizon, dtype=torch.bool)}
    if actions is not None:
        more = {name: torch.cat([getattr(actions, name), tensor]) for name, tensor in more.items()}
    return Actions(**more, keys=(*(actions.keys if actions else ()), 0))


def _joined(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([first, second.to(first.dtype)]) if len(first) else second
