"""Robot items, and observations at inference, to a `Batch` with `Actions`: one prompt for both.

The prompt is the published one (zhaorw02/GEM, commit 5500948): a user's turn with all cameras' images, then the
instruction; no answer is asked for, nothing is said by the system unless the collator says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from gemvlm.batch import Actions, Batch, Target
from gemvlm.data.actions.augmentation import Augmentation
from gemvlm.data.actions.item import RobotItem
from gemvlm.data.collate import Collator, keyed
from gemvlm.data.conversation import ImageSlot, Segment, render_dialogue
from gemvlm.data.encoding import Encoded
from gemvlm.data.tokenizer import END_OF_TEXT
from gemvlm.robot.codec import ActionCodec
from gemvlm.robot.contract import RobotObservation
from gemvlm.sample import Frame, Sample

GREY = 128


def robot_prompt(images: int, instruction: str, system: str | None = None) -> list[Segment | ImageSlot]:
    """All images, then the instruction, in a user's turn that nobody answers."""
    asked = render_dialogue(images, [(instruction, None)], system)
    return asked[:-1]  # what opens an answer


class ActionCollator:
    """Items of one step to a `Batch`: a function of the items, the epoch and `seed` alone.

    `codec` turns the robot's numbers into the network's. `state_noise` is the deviation of noise on the normalised
    state. `augmentation` changes pictures. Shares `hidden_images` of the pictures and `hidden_words` of the
    instructions are hidden in place: grey pixels and end-of-text tokens where they stood, so that every other token
    keeps its place; a hidden picture has no target. Plain samples may stand among the items: they learn to answer.
    """

    def __init__(
        self,
        collator: Collator,
        codec: ActionCodec,
        *,
        seed: int = 0,
        state_noise: float = 0.0,
        augmentation: Augmentation | None = None,
        hidden_images: float = 0.0,
        hidden_words: float = 0.0,
    ) -> None:
        self.collator, self.codec, self.seed = collator, codec, seed
        self.state_noise, self.augmentation = state_noise, augmentation
        self.hidden_images, self.hidden_words = hidden_images, hidden_words

    def __call__(self, items: Sequence[RobotItem | Sample], epoch: int | Sequence[int] = 0) -> Batch:
        """`epoch` is one for all items, or one for each. ValueError if the chunks differ in length."""
        epochs = [epoch] * len(items) if isinstance(epoch, int) else epoch
        encoded: list[Encoded] = []
        frames: list[Frame] = []
        targets: list[Target] = []
        robots: list[tuple[int, RobotItem, int]] = []
        for segment, (item, its_epoch) in enumerate(zip(items, epochs, strict=True)):
            shown, hidden = self._shown(item, its_epoch)
            if isinstance(item, RobotItem):
                encoded.append(self._conversation(item, shown, its_epoch))
                robots.append((segment, item, its_epoch))
            else:
                encoded.append(self.collator.conversation(item, its_epoch))
            for index, frame in enumerate(shown):
                if index not in hidden:
                    targets += self.collator.frame_targets(item.id, its_epoch, index, frame, image=len(frames))
                frames.append(frame)
        batch = self.collator.pack(encoded, frames, tuple(targets), tuple(item.id for item in items))
        return replace(batch, actions=self._actions(robots) if robots else None)

    def observe(self, observations: Sequence[RobotObservation], keys: Sequence[int], horizon: int) -> Batch:
        """What robots see now, as in training; chunks are zeros of `horizon` steps, `keys` seed their noise.

        ValueError names a camera or number of state that an observation lacks.
        """
        encoded, frames = [], []
        for observation in observations:
            shown = [Frame(self._picture(observation, camera)) for camera in self.codec.embodiment.contract.cameras]
            encoded.append(self._encoded(shown, observation.instruction))
            frames += shown
        count = len(observations)
        batch = self.collator.pack(encoded, frames, (), tuple(str(number) for number in range(count)))
        state = np.stack([self.codec.state(observation.state) for observation in observations])
        actions = Actions(
            samples=torch.arange(count),
            state=torch.from_numpy(state),
            chunk=torch.zeros(count, horizon, self.codec.embodiment.action_size),
            valid=torch.ones(count, horizon, dtype=torch.bool),
            keys=tuple(keys),
        )
        return replace(batch, actions=actions)

    def _shown(self, item: RobotItem | Sample, epoch: int) -> tuple[list[Frame], set[int]]:
        """The frames as this epoch shows them, and which of them are hidden."""
        if isinstance(item, Sample):
            return list(item.frames), set()
        frames, hidden = [], set()
        for index, (camera, frame) in enumerate(item.frames.items()):
            if _chance(self.seed, epoch, item.id, camera, "hidden") < self.hidden_images:
                hidden.add(index)
                frame = Frame(np.full_like(frame.image, GREY))
            elif self.augmentation is not None:
                frame = self.augmentation(frame, keyed(self.seed, epoch, item.id, camera, "augmentation"))
            frames.append(frame)
        return frames, hidden

    def _conversation(self, item: RobotItem, frames: Sequence[Frame], epoch: int) -> Encoded:
        wording = item.wordings[keyed(self.seed, epoch, item.id, "wording") % len(item.wordings)]
        hidden = _chance(self.seed, epoch, item.id, "words", "hidden") < self.hidden_words
        return self._encoded(frames, wording, hidden)

    def _encoded(self, frames: Sequence[Frame], instruction: str, hidden: bool = False) -> Encoded:
        parts = robot_prompt(len(frames), instruction, self.collator.system)
        if hidden:
            parts = [self._silenced(part) for part in parts]
        encoded = self.collator.encode(parts, frames)
        if len(encoded.input_ids) > self.collator.max_tokens:
            raise ValueError(
                f"an instruction of {len(instruction)} characters with {len(frames)} images takes "
                f"{len(encoded.input_ids)} tokens, more than {self.collator.max_tokens}; shorten it or lower max_pixels"
            )
        return encoded

    def _silenced(self, part: Segment | ImageSlot) -> Segment | ImageSlot:
        """What the user says as so many tokens that say nothing."""
        if isinstance(part, ImageSlot) or part.markup:
            return part
        count = len(self.collator.encode([part], ()).input_ids)
        return replace(part, text=END_OF_TEXT * count, markup=True)

    def _actions(self, robots: Sequence[tuple[int, RobotItem, int]]) -> Actions:
        horizons = {len(item.actions) for _, item, _ in robots}
        if len(horizons) != 1:
            raise ValueError(f"chunks of {sorted(horizons)} steps in one batch; give items of one horizon")
        state = np.stack([self._state(item, epoch) for _, item, epoch in robots])
        chunk = np.stack([self.codec.encode(item.state, item.actions) for _, item, _ in robots])
        return Actions(
            samples=torch.tensor([segment for segment, _, _ in robots]),
            state=torch.from_numpy(state),
            chunk=torch.from_numpy(chunk),
            valid=torch.from_numpy(np.stack([item.valid for _, item, _ in robots])),
            keys=tuple(keyed(self.seed, epoch, item.id, "action") for _, item, epoch in robots),
        )

    def _state(self, item: RobotItem, epoch: int) -> Float32[np.ndarray, "s"]:
        state = self.codec.state(item.state)
        if not self.state_noise:
            return state
        random = np.random.Generator(np.random.PCG64(keyed(self.seed, epoch, item.id, "state")))
        return state + np.float32(self.state_noise) * random.standard_normal(state.shape, dtype=np.float32)

    def _picture(self, observation: RobotObservation, camera: str) -> UInt8[np.ndarray, "H W 3"]:
        if camera not in observation.images:
            raise ValueError(f"the observation has no camera {camera!r}; it has {sorted(observation.images)}")
        return observation.images[camera]


def _chance(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone."""
    return keyed(*parts) / 2**63
