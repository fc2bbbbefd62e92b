"""A `GemVla` as LeRobot asks for policies: loss of a batch, chunk, and one action after the other."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from gemvlm.batch import Actions, Batch
from gemvlm.data.actions import robot_prompt
from gemvlm.data.collate import Collator, keyed
from gemvlm.data.tokenizer import SpecialIds
from gemvlm.recipes import get_policy
from gemvlm.recipes.run import with_special_ids
from gemvlm.recipes.vla_start import find_policy_start
from gemvlm.sample import Frame
from lerobot_policy_gemvlm.configuration_gemvlm import GemvlmConfig

STATE, ACTION, PADDED, TASK = "observation.state", "action", "action_is_pad", "task"


class GemvlmPolicy(PreTrainedPolicy):
    """States and actions come normalised; pictures (B, 3, H, W) in [0, 1]; `task` holds a sentence for each row.

    Noise and flow times are drawn from (seed, batches seen, row), and the count of batches is saved with the weights.
    """

    config_class = GemvlmConfig
    name = "gemvlm"

    def __init__(self, config: GemvlmConfig, dataset_stats: Any = None, **_: Any) -> None:
        super().__init__(config)
        config.validate_features()
        config.fit_statistics(dataset_stats or {})
        recipe = get_policy(config.recipe)
        if recipe.paints:
            raise ValueError(f"recipe {recipe.name} paints depth, which LeRobot's batches lack; take vla_nano_action")
        beginning = find_policy_start(recipe, [config.start] if config.start else [])
        if beginning is None:
            raise ValueError(f"recipe {recipe.name} has no weights to begin with; add --policy.start")
        recipe = replace(
            recipe, expert=replace(recipe.expert, horizon=config.chunk_size), executed=config.n_action_steps
        )
        gem = replace(recipe.model, backbone=beginning.backbone)
        gem = with_special_ids(gem, SpecialIds.of(beginning.tokenizer), len(beginning.tokenizer))
        state, action = config.robot_state_feature.shape[0], config.action_feature.shape[0]
        self.model = beginning.load(recipe.policy(state, action, dict(gem.backbone)), config.seed)
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))
        self._collate = Collator(beginning.tokenizer, recipe.coordinates, recipe.image, system=recipe.system)
        self._cameras = sorted(config.image_features)
        self.reset()

    def get_optim_params(self) -> list[dict[str, Any]]:
        """The expert and the backbone at their own rates; norms, biases and embeddings are not decayed."""
        groups = []
        rates = {"expert": self.config.optimizer_lr} | dict.fromkeys(
            ("vision", "merger", "language"), self.config.backbone_lr
        )
        for name, parameters in self.model.parameter_groups().items():
            rate = rates.get(name, 0.0)
            for parameter in parameters.values():
                parameter.requires_grad_(rate > 0)
            for decays in (True, False):
                own = [p for n, p in parameters.items() if (p.ndim == 2 and "embed" not in n) == decays]
                if own and rate > 0:
                    groups.append({"params": own, "lr": rate} | ({} if decays else {"weight_decay": 0.0}))
        return groups

    def reset(self) -> None:
        """Forgets the actions that are still to be carried out."""
        self._waiting: deque[Tensor] = deque()

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """The flow's loss over the steps that are not padded. ValueError for a reduction other than "mean"."""
        if reduction != "mean":
            raise ValueError(f"gemvlm: reduction {reduction!r} is not offered, only 'mean'")
        chunk = batch[ACTION].float()
        padded = batch.get(PADDED)
        valid = torch.ones(chunk.shape[:2], dtype=torch.bool, device=chunk.device) if padded is None else ~padded
        loss = self.model(self._batch(batch, chunk, valid, "train"), losses=("action",))["action"]
        self.batches_seen += 1
        return loss, {"action_loss": float(loss.detach())}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """(B, chunk_size, action) normalised actions."""
        self.eval()
        rows, expert = len(batch[STATE]), self.model.config.expert
        chunk = torch.zeros(rows, expert.horizon, expert.action, device=batch[STATE].device)
        valid = torch.ones(rows, expert.horizon, dtype=torch.bool, device=chunk.device)
        found = self.model.act(self._batch(batch, chunk, valid, "act"), self.config.flow_steps)
        self.batches_seen += 1
        return found

    def select_action(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """(B, action): the next of those that wait, or the first of a new chunk."""
        if not self._waiting:
            chunk = self.predict_action_chunk(batch)[:, : self.config.n_action_steps]
            self._waiting.extend(chunk.unbind(1))
        return self._waiting.popleft()

    def _batch(self, batch: dict[str, Any], chunk: Tensor, valid: Tensor, what: str) -> Batch:
        """What LeRobot gives as `gemvlm` packs it. ValueError if a camera is missing or a row lacks its words."""
        if missing := [camera for camera in self._cameras if camera not in batch]:
            raise ValueError(
                f"gemvlm: no picture of {', '.join(missing)}; give other names with --rename_map, or train on the "
                "cameras that there are, with --policy.input_features"
            )
        state, rows = batch[STATE].float(), len(batch[STATE])
        words = batch.get(TASK) or [""] * rows
        if isinstance(words, str) or len(words) != rows:
            raise ValueError(f"gemvlm: {TASK!r} must hold a sentence for each of {rows} rows, got {words!r}")
        encoded, frames = [], []
        for row in range(rows):
            shown = [Frame(_picture(batch[camera][row])) for camera in self._cameras]
            encoded.append(self._collate.encode(robot_prompt(len(shown), words[row], self._collate.system), shown))
            frames += shown
        packed = self._collate.pack(encoded, frames, (), tuple(map(str, range(rows))))
        seen = int(self.batches_seen)
        actions = Actions(
            samples=torch.arange(rows),
            state=state,
            chunk=chunk,
            valid=valid,
            keys=tuple(keyed("lerobot", what, self.config.seed, seen, row) for row in range(rows)),
        )
        return replace(packed, actions=actions).to(state.device)


def _picture(image: Tensor) -> Any:
    """(3, H, W) in [0, 1] → uint8 (H, W, 3)."""
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
