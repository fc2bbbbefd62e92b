"""How far a policy's chunks are from what was done in episodes that it never learned from (B13: the release measured,
unseeded, on its training set)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from gemvlm.data.actions import RobotItem
from gemvlm.data.collate import keyed
from gemvlm.inference.policy import GemPolicy, policy_codec
from gemvlm.model.gem_vla import GemVla
from gemvlm.model.policy_card import PolicyCard
from gemvlm.robot import RobotObservation
from gemvlm.training.checkpoint import RunState
from gemvlm.training.stage import Stage

MOMENTS = 64

PolicyCallback = Callable[[GemVla, Stage, RunState], Mapping[str, float] | None]


def held_out_errors(
    held_out: Sequence[Any], tokenizer: PreTrainedTokenizerFast, card: PolicyCard, moments: int = MOMENTS
) -> PolicyCallback:
    """Numbers for the log, always of the same moments (`RobotItem`s) and noises.

    `held_out/NAME` is the mean absolute error of each number of an action over the valid steps, in the robot's units;
    `held_out/action` that of all, normalised, beside `held_out/still`: what always doing the mean would have.
    """
    count = min(moments, len(held_out))
    items = [held_out[round(i * (len(held_out) - 1) / max(count - 1, 1))] for i in range(count)]
    truth = np.stack([item.actions for item in items])
    valid = np.stack([item.valid for item in items])
    observations = [observation_of(item) for item in items]
    seeds = [keyed("held out", item.id) for item in items]
    states = np.stack([item.state for item in items])
    codec = policy_codec(card)
    wanted = codec.encode(states, truth)[valid]
    still = float(np.abs(wanted - wanted.mean(0)).mean())

    def errors(policy: GemVla, stage: Stage, state: RunState) -> Mapping[str, float]:
        training = policy.training
        chunks = GemPolicy(policy, tokenizer, card).act(observations, seeds)
        policy.train(training)
        found = np.stack([chunk.actions for chunk in chunks])
        names = card.contract.action_names
        each = np.abs(found - truth)[valid].mean(0)
        numbers = {f"held_out/{name}": float(value) for name, value in zip(names, each, strict=True)}
        error = float(np.abs(codec.encode(states, found)[valid] - wanted).mean())
        return numbers | {"held_out/action": error, "held_out/still": still}

    return errors


def observation_of(item: RobotItem) -> RobotObservation:
    """What a robot would have told at that moment, in the first wording."""
    images = {camera: frame.image for camera, frame in item.frames.items()}
    return RobotObservation(images, item.state, item.wordings[0])
