"""The training step that a careful developer writes with stock classes; `training_step.py` measures ours against it.

Frozen: it only changes when the libraries that it stands on change their names. Right-padded rows with an attention
mask, logits of every position in float32, one loop over the images to find their spans, and the autoencoder inside the
step. As in the authors' release the text loss is computed in every stage, also where nothing can learn from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SanaTransformer2DModel
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration


@dataclass(frozen=True)
class Rows:
    """B samples as right-padded rows of L tokens, and N images in the order of their spans, each with its target.

    `noise`, `time` (uniform in [0, 1)) and `dropped` are the random numbers of each target, drawn beforehand.
    """

    input_ids: Tensor  # B L
    attention_mask: Tensor  # B L, 1 at real tokens
    position_ids: Tensor  # 3 B L
    labels: Tensor  # B L, -100 where nothing is supervised
    pixel_values: Tensor  # P patch
    image_grid_thw: Tensor  # N 3
    pictures: Tensor  # N 3 h w, in [-1, 1]
    valid: Tensor  # N h w
    noise: Tensor  # N C hl wl
    time: Tensor  # N
    dropped: Tensor  # N, True where the generator gets the null condition


class Straightforward(nn.Module):
    """Qwen3-VL, connector and Sana; parameters are named as in the authors' checkpoints, Qwen's under `qwen.`."""

    def __init__(
        self,
        qwen: Mapping[str, Any],
        sana: Mapping[str, Any],
        shift: float,
        encode: Callable[[Tensor], Tensor],
    ):
        super().__init__()
        self.qwen = Qwen3VLForConditionalGeneration._from_config(Qwen3VLConfig(**qwen), attn_implementation="sdpa")
        self.sana = SanaTransformer2DModel(**sana)
        width, condition = self.qwen.config.text_config.hidden_size, self.sana.config.caption_channels
        self.diffusion_connector = nn.Sequential(
            nn.Linear(width, condition),
            nn.GELU(approximate="tanh"),
            nn.Linear(condition, condition),
            nn.RMSNorm(condition, eps=1e-5),
        )
        self.shift = shift
        self.encode = encode

    def forward(self, rows: Rows) -> dict[str, Tensor]:
        states = self.states(rows)
        return {"text": self.text_loss(states, rows), "depth": self.depth_loss(states, rows)}

    def states(self, rows: Rows) -> Tensor:
        """(B, L, D), after the final norm."""
        return self.qwen.model(
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            position_ids=rows.position_ids,
            pixel_values=rows.pixel_values,
            image_grid_thw=rows.image_grid_thw,
            use_cache=False,
        ).last_hidden_state

    def text_loss(self, states: Tensor, rows: Rows) -> Tensor:
        logits = self.qwen.lm_head(states).float()
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), rows.labels[:, 1:].flatten(), ignore_index=-100)

    def depth_loss(self, states: Tensor, rows: Rows) -> Tensor:
        spans = self.image_states(states, rows)
        longest = max(len(span) for span in spans)
        padded = torch.stack([F.pad(span, (0, 0, 0, longest - len(span))) for span in spans])
        mask = torch.stack([torch.arange(longest, device=states.device) < len(span) for span in spans])
        condition = self.diffusion_connector(padded * ~rows.dropped[:, None, None])
        latents = self.encode(rows.pictures)
        level = (1000 - torch.floor(1000 * rows.time)) / 1000
        sigma = self.shift * level / (1 + (self.shift - 1) * level)
        across = sigma[:, None, None, None]
        predicted = self.sana(
            (1 - across) * latents + across * rows.noise,
            encoder_hidden_states=condition,
            encoder_attention_mask=mask,
            timestep=1000 * sigma,
            return_dict=False,
        )[0]
        error = (predicted.float() - (rows.noise - latents)).square().mean(1)
        weight = F.avg_pool2d(rows.valid.float(), rows.valid.shape[-1] // latents.shape[-1])
        return ((error * weight).sum((1, 2)) / weight.sum((1, 2))).mean()

    def image_states(self, states: Tensor, rows: Rows) -> list[Tensor]:
        """The states strictly between vision-start and vision-end, image by image."""
        config, found = self.qwen.config, []
        for row, ids in zip(states, rows.input_ids, strict=True):
            starts = (ids == config.vision_start_token_id).nonzero()[:, 0].tolist()
            ends = (ids == config.vision_end_token_id).nonzero()[:, 0].tolist()
            found += [row[start + 1 : end] for start, end in zip(starts, ends, strict=True)]
        return found
