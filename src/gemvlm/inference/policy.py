"""A policy checkpoint → chunks of actions for robots, many observations at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from gemvlm.data.actions import ActionCollator
from gemvlm.data.collate import Collator, keyed
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.data.frames import ImageConfig
from gemvlm.data.tokenizer import load_tokenizer
from gemvlm.inference.hub import named_folder
from gemvlm.inference.load import as_dtype
from gemvlm.inference.quantise import Scheme, quantise_policy
from gemvlm.model.gem_vla import GemVla
from gemvlm.model.policy_card import POLICY_FILE, PolicyCard
from gemvlm.model.weights import load_weights, undrawn
from gemvlm.robot import ActionChunk, ActionContract, Committed, RobotObservation
from gemvlm.robot.codec import ActionCodec
from gemvlm.robot.embodiments import open_embodiment
from gemvlm.runtime import Precision, default_device, get_log


class GemPolicy:
    """A `robot.Policy`: pictures, state and instruction in; a chunk of `horizon` actions in the robot's units out.

    An answer depends on its observation, its seed and its committed actions, but for rounding not on what is asked
    beside it; `batch_size` bounds how many are worked on at once. Pictures of another size than it learned from are
    answered, and warned of once. `executed` of a chunk's actions are meant to be
    carried out before the next is asked for.
    """

    def __init__(
        self, model: GemVla, tokenizer: PreTrainedTokenizerFast, card: PolicyCard, batch_size: int = 32
    ) -> None:
        self.model, self.tokenizer, self.card, self.batch_size = model.eval(), tokenizer, card, batch_size
        self.contract: ActionContract = card.contract
        self.horizon: int = model.config.expert.horizon
        self.executed: int = card.executed
        self.codec = policy_codec(card)
        self.collator = policy_collator(tokenizer, card, self.codec)
        self._told_size = False

    @property
    def picture_sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) of the pictures that it learned from, by camera; empty if its card does not say."""
        return {camera: (height, width) for camera, (height, width) in self.card.data.get("pictures", {}).items()}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def size_for(self, size: int | None, default: int) -> int:
        """Pixels a side at which a world must draw for it: `size` if given, else what it learned from.

        `default` is for a policy that does not say. ValueError if it learned from pictures of another size: it would
        see less or more of everything, in silence.
        """
        learned = self.picture_sizes
        if not learned:
            return default if size is None else size
        wanted = next(iter(learned.values()))[0] if size is None else size
        if other := {camera: sides for camera, sides in learned.items() if sides != (wanted, wanted)}:
            raise ValueError(
                f"the policy (recipe {self.card.recipe}) learned from pictures of {other} (height, width), "
                f"not {wanted} pixels a side; leave --size out, or train on episodes of that size"
            )
        return wanted

    def act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[ActionChunk]:
        """A chunk for each observation. ValueError for one that lacks a camera, or whose state doesn't fit."""
        if len(seeds) != len(observations) or (committed is not None and len(committed) != len(observations)):
            raise ValueError(
                f"{len(observations)} observations with {len(seeds)} seeds"
                + ("" if committed is None else f" and {len(committed)} committed chunks")
                + "; give one of each for every robot"
            )
        given = [None] * len(observations) if committed is None else list(committed)
        for number, observation in enumerate(observations):
            self._check(observation, given[number], f"observation {number}")
        chunks: list[ActionChunk] = []
        for begin in range(0, len(observations), self.batch_size):
            part = slice(begin, begin + self.batch_size)
            chunks += self._act(observations[part], seeds[part], given[part])
        return chunks

    def _act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None],
    ) -> list[ActionChunk]:
        batch = self.collator.observe(observations, [keyed("act", seed) for seed in seeds], self.horizon)
        given = self._committed(observations, committed)
        with torch.no_grad() if given else torch.inference_mode():  # what is committed is followed by gradients
            found = self.model.act(batch.to(self.device), self.card.flow_steps, guidance=self.card.guidance, **given)
        states = np.stack([np.asarray(observation.state, np.float32) for observation in observations])
        actions = self.codec.decode(found.float().cpu().numpy(), states)
        return [ActionChunk(own, self.contract.rate_hz) for own in actions]

    def _committed(
        self, observations: Sequence[RobotObservation], committed: Sequence[Committed | None]
    ) -> dict[str, Any]:
        """What the chunks must begin with and stay near to, as the model sees it, padded with weight 0."""
        longest = max((0 if own is None else len(own.actions) for own in committed), default=0)
        if not longest:
            return {}
        size = self.model.config.expert.action
        known = np.zeros((len(committed), longest, size), np.float32)
        weights = np.zeros((len(committed), longest), np.float32)
        for row, (observation, own) in enumerate(zip(observations, committed, strict=True)):
            if own is not None:
                known[row, : len(own.actions)] = self.codec.encode(np.asarray(observation.state), own.actions)
                weights[row, : len(own.actions)] = own.weights
        tensors = (torch.from_numpy(values).to(self.device) for values in (known, weights))
        return dict(zip(("committed", "committed_weights"), tensors, strict=True))

    def _check(self, observation: RobotObservation, committed: Committed | None, what: str) -> None:
        names, cameras = self.contract.state_names, self.contract.cameras
        if missing := [camera for camera in cameras if camera not in observation.images]:
            raise ValueError(
                f"{what}: camera {', '.join(missing)} missing; there are {sorted(observation.images)}, the policy "
                f"looks through {list(cameras)}: name the robot's cameras like that"
            )
        for camera in cameras:
            image = observation.images[camera]
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise ValueError(f"{what}: image {camera} is {image.dtype} {image.shape}; give uint8 (H, W, 3) in RGB")
            learned = self.picture_sizes.get(camera, image.shape[:2])
            if image.shape[:2] != learned and not self._told_size:
                self._told_size = True
                get_log().warning(
                    "camera %s shows pictures of %s (height, width), the policy learned from %s: expect worse actions",
                    camera, image.shape[:2], learned,
                )  # fmt: skip
        state = np.asarray(observation.state)
        if state.shape != (len(names),) or not np.isfinite(state).all():
            raise ValueError(
                f"{what}: the state is {state.tolist() if state.size < 64 else state.shape}; the policy needs "
                f"{len(names)} finite numbers: {', '.join(names)}"
            )
        actions = None if committed is None else committed.actions
        if actions is not None and (
            actions.ndim != 2
            or actions.shape[1] != len(self.contract.action_names)
            or len(actions) > self.horizon
            or not np.isfinite(actions).all()
        ):
            raise ValueError(
                f"{what}: committed actions have shape {actions.shape}; give at most {self.horizon} rows of "
                f"{len(self.contract.action_names)} finite numbers: {', '.join(self.contract.action_names)}"
            )


def policy_codec(card: PolicyCard) -> ActionCodec:
    """The robot's numbers ⇄ the network's, as the checkpoint says."""
    return ActionCodec(open_embodiment(card.embodiment, card.contract), card.normalisation)


def policy_collator(tokenizer: PreTrainedTokenizerFast, card: PolicyCard, codec: ActionCodec) -> ActionCollator:
    """What makes a batch of observations, exactly as in training but without its noise."""
    coordinates, images = CoordinateFormat(**card.coordinates), ImageConfig(**card.image)
    return ActionCollator(Collator(tokenizer, coordinates, images, system=card.system), codec)


def load_policy(
    path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    dtype: torch.dtype | Precision | None = None,
    quantised: Scheme | None = None,
) -> GemPolicy:
    """The policy of a checkpoint folder that `gemvlm vla train` wrote, or of one on a hub ("owner/policy@main").

    `device` is the best one there is by default; `dtype` is float32 by default, whatever the weights are stored in.
    With `quantised` the weights of language model and expert are made smaller, on a CPU alone (`inference.quantise`).
    ValueError if the folder is not a whole policy.
    """
    folder = policy_folder(path)
    card = PolicyCard.read(folder)
    tokenizer = load_tokenizer(folder)
    model = undrawn(lambda: GemVla(card.model))
    load_weights(model, folder)
    model.to(device=default_device(None if device is None else str(device)), dtype=as_dtype(dtype))
    if quantised is not None:
        quantise_policy(model, quantised)
    return GemPolicy(model, tokenizer, card)


def policy_folder(path: str | os.PathLike[str]) -> Path:
    """The folder that a user means, fetched if it is on a hub. ValueError says what is not a policy about it."""
    folder = named_folder(path, POLICY_FILE)
    if (folder / POLICY_FILE).is_file():
        return folder
    inner = sorted(card.parent for card in folder.glob(f"*/{POLICY_FILE}") if card.parent.suffix != ".draft")
    if inner:
        remedy = f"this is the folder of a run: give {inner[0]}"
    elif (folder / "gem.json").is_file():
        remedy = "this is a GEM, which answers but does not act: train a policy on it with `gemvlm vla train`"
    else:
        remedy = "give a folder written by `gemvlm vla train`, or owner/policy of a hub"
    raise ValueError(f"{folder}: {POLICY_FILE} is missing{'' if folder.is_dir() else ', as is the folder'}; {remedy}")
