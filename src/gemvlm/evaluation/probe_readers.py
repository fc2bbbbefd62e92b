"""What a probe reads from: the states of a model at its image tokens, or what can be had without one.

    GemReader           our checkpoints: the inputs of decoder layers, and last the states after the final norm
    HuggingFaceReader   any image-text model of transformers whose processor writes one token per cell of a grid
    Position            cosines of the token's place in the image: how far the habit of a data set goes
    MeanMap             the token's cell alone: the mean map of the training frames

Layer 0 is what enters the decoder. Images come before any question and attention is causal, so no question matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from gemvlm.data.collate import Collator
from gemvlm.data.frames import ImageConfig
from gemvlm.inference import GemPipeline
from gemvlm.model.gem import Gem
from gemvlm.runtime import default_device, deterministic
from gemvlm.sample import Frame, Sample

Picture = UInt8[np.ndarray, "H W 3"]

MOST_LAYERS = 16
"""Of deeper models so many layers are read, evenly spread, the first and the last included."""
WAVES, CELLS = 4, 16
"""Cosines along each side; cells along each side of the mean map, which no model's grid need divide."""


@dataclass(frozen=True)
class ImageStates:
    """The states of one image's tokens, row by row of a grid (rows, columns), at each layer that is read."""

    states: Float[Tensor, "L n D"]
    grid: tuple[int, int]


@runtime_checkable
class StateReader(Protocol):
    """`layers` are the numbers of what `read` gives, in its order."""

    @property
    def name(self) -> str: ...

    @property
    def layers(self) -> tuple[int, ...]: ...

    def read(self, images: Sequence[Picture]) -> list[ImageStates]: ...


def spread(depth: int, most: int = MOST_LAYERS) -> tuple[int, ...]:
    """At most `most` of the numbers 0 ... depth, evenly spread with both ends."""
    return tuple(sorted({round(i) for i in np.linspace(0, depth, min(most, depth + 1)).tolist()}))


def untrained(pipeline: GemPipeline, seed: int) -> GemPipeline:
    """The same model with fresh weights, a function of the seed, on the same device."""
    with deterministic(seed):
        gem = Gem(pipeline.card.model)
    gem.to(pipeline.device, next(pipeline.gem.parameters()).dtype)
    return GemPipeline(gem.eval(), pipeline.tokenizer, pipeline.card, pipeline.batch_size)


class GemReader:
    """States of a checkpoint of ours."""

    def __init__(self, pipeline: GemPipeline, name: str = "model") -> None:
        self.name = name
        self._gem = pipeline.gem
        self._collate = Collator(pipeline.tokenizer, pipeline.coordinates, ImageConfig(**pipeline.card.image))
        self._batch_size = pipeline.batch_size
        self.layers = spread(self._gem.backbone.depth)

    def read(self, images: Sequence[Picture]) -> list[ImageStates]:
        found: list[ImageStates] = []
        for start in range(0, len(images), self._batch_size):
            part = images[start : start + self._batch_size]
            found += self._read([Sample(str(i), (Frame(image),), (), "", "") for i, image in enumerate(part)])
        return found

    @torch.no_grad()
    def _read(self, samples: Sequence[Sample]) -> list[ImageStates]:
        backbone = self._gem.backbone
        batch = self._collate(samples).to(next(self._gem.parameters()).device)
        out = backbone(batch, layer_inputs=self.layers[:-1])
        assert out.states is not None
        layers = torch.stack([*(out.layer_inputs[i] for i in self.layers[:-1]), out.states])
        grids = self._gem.token_grids(batch).tolist()
        return [
            ImageStates(layers[:, start:end], (int(grid[0]), int(grid[1])))
            for (start, end), grid in zip(batch.spans.tolist(), grids, strict=True)
        ]


class HuggingFaceReader:
    """States of a transformers model at the tokens of its images: `hidden_states`, layer by layer.

    The processor must write the image as one grid of tokens: as its `image_grid_thw` says, else a square. ValueError
    tells what it wrote instead (crops and thumbnails can often be turned off by `options` of the processor).
    """

    def __init__(
        self, model: Any, processor: Any, name: str = "model", options: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self._model, self._processor, self._options = model.eval(), processor, dict(options or {})
        config = model.config
        self._token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
        if self._token is None:
            raise ValueError(
                f"{name}: its configuration names no image token (image_token_id), so that its image states can't be "
                "found; models that look at images by cross-attention have none in their decoder"
            )
        text = config.get_text_config()
        self.layers = spread(int(text.num_hidden_layers))

    @classmethod
    def load(
        cls, place: str, device: str | None = None, options: Mapping[str, Any] | None = None, dtype: str = "auto"
    ) -> HuggingFaceReader:
        """A folder or a hub id. ValueError if transformers can't open it as an image-text model."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(place)
            model: Any = AutoModelForImageTextToText.from_pretrained(place, dtype=dtype)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ValueError(
                f"{place}: neither a checkpoint of gemvlm nor an image-text model that transformers opens: {error}"
            ) from error
        return cls(model.to(default_device(device)), processor, "model", options)

    def with_random_weights(self, name: str, seed: int) -> HuggingFaceReader:
        """The same architecture with fresh weights, on the same device."""
        with deterministic(seed):
            fresh = type(self._model)._from_config(self._model.config)
        weight = next(self._model.parameters())
        return HuggingFaceReader(fresh.to(weight.device, weight.dtype), self._processor, name, self._options)

    @torch.no_grad()
    def read(self, images: Sequence[Picture]) -> list[ImageStates]:
        return [self._read(Image.fromarray(image)) for image in images]

    def _read(self, image: Image.Image) -> ImageStates:
        inputs = self._processor(text=[self._prompt()], images=[image], return_tensors="pt", **self._options)
        inputs = inputs.to(next(self._model.parameters()).device)
        places = (inputs["input_ids"][0] == self._token).nonzero()[:, 0]
        grid = self._grid(inputs, len(places))
        floating = {k: v.to(self._model.dtype) for k, v in inputs.items() if torch.is_floating_point(v)}
        hidden = self._model(**{**inputs, **floating}, output_hidden_states=True, use_cache=False).hidden_states
        if hidden is None or len(hidden) != self.layers[-1] + 1 or hidden[0].shape[1] != inputs["input_ids"].shape[1]:
            given = "none" if hidden is None else f"{len(hidden)} of {tuple(hidden[0].shape)}"
            raise ValueError(
                f"{self.name}: {self.layers[-1] + 1} hidden states of {inputs['input_ids'].shape[1]} tokens were "
                f"expected, the model gives {given}; it can't be probed this way"
            )
        return ImageStates(torch.stack([hidden[i][0, places] for i in self.layers]), grid)

    def _prompt(self) -> str:
        if getattr(self._processor, "chat_template", None):
            message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}
            return str(self._processor.apply_chat_template([message], tokenize=False, add_generation_prompt=False))
        return f"{self._processor.image_token}\n"

    def _grid(self, inputs: Mapping[str, Tensor], tokens: int) -> tuple[int, int]:
        if "image_grid_thw" in inputs:
            merge = int(getattr(self._model.config.vision_config, "spatial_merge_size", 1))
            _, rows, columns = (int(v) for v in inputs["image_grid_thw"][0])
            grid = rows // merge, columns // merge
        else:
            grid = math.isqrt(tokens), math.isqrt(tokens)
        if not tokens or grid[0] * grid[1] != tokens:
            raise ValueError(
                f"{self.name}: the processor wrote {tokens} image tokens, which are no grid of {grid[0]} x {grid[1]}; "
                "turn off crops and thumbnails by options of the processor, such as do_image_splitting=false or "
                "max_patches=1"
            )
        return grid


@dataclass(frozen=True)
class Position:
    """Products of cosines of the token's place: a smooth guess from where it is in the image."""

    grid: tuple[int, int]
    name: str = "position only"
    layers: tuple[int, ...] = (0,)

    def read(self, images: Sequence[Picture]) -> list[ImageStates]:
        y, x = _places(self.grid)
        waves = torch.arange(WAVES)
        features = (
            torch.cos(math.pi * y[:, None] * waves)[:, :, None] * torch.cos(math.pi * x[:, None] * waves)[:, None]
        )
        return [ImageStates(features.flatten(1)[None], self.grid)] * len(images)


@dataclass(frozen=True)
class MeanMap:
    """Which cell the token lies in: a probe can then say no more than the mean of the training frames there."""

    grid: tuple[int, int]
    name: str = "mean map"
    layers: tuple[int, ...] = (0,)

    def read(self, images: Sequence[Picture]) -> list[ImageStates]:
        y, x = _places(self.grid)
        cell = (y * CELLS).long().clamp(max=CELLS - 1) * CELLS + (x * CELLS).long().clamp(max=CELLS - 1)
        features = torch.nn.functional.one_hot(cell, CELLS * CELLS).float()
        return [ImageStates(features[None], self.grid)] * len(images)


def _places(grid: tuple[int, int]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """(y, x) of the centres of the tokens, as fractions."""
    rows, columns = ((torch.arange(count) + 0.5) / count for count in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return y.flatten(), x.flatten()
