"""Any GEM checkpoint as a teacher of depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gemvlm.curation.depth_teacher.teacher import Identity, focal_lengths, folder_hash
from gemvlm.depth_map import DepthKind, DepthMap
from gemvlm.depth_map.depth import AFFINE_KINDS
from gemvlm.inference import load
from gemvlm.inference.load import checkpoint_folder, shipped_checkpoints

SHIPPED_LICENCE = "Apache-2.0"
"""Of this package, and so of the models within it."""

LEAST_CONFIDENCE = 0.1
"""Under this the painted colour is no depth's: the pixel has none."""


class GemTeacher:
    """Depth painted by a GEM checkpoint: metric if its encoding has a range in metres, else up to scale and shift.

    The noise of an image comes from its own pixels (see `GemPipeline.depth_batch`), so its map depends on it alone.
    """

    def __init__(
        self, path_or_name: Path | str, licence: str | None = None, steps: int = 30, ensemble: int = 1, seed: int = 0
    ):
        """`licence` is that of the checkpoint's weights: folders do not say it. A shipped model has this package's."""
        self.folder = checkpoint_folder(path_or_name)
        self.licence = licence or (SHIPPED_LICENCE if str(path_or_name) in shipped_checkpoints() else "unknown")
        self.steps, self.ensemble, self.seed = steps, ensemble, seed
        self._pipeline = load(self.folder)

    @property
    def name(self) -> str:
        return f"gemvlm {self._pipeline.card.recipe}, step {self._pipeline.card.step}"

    @cached_property
    def weights(self) -> str:
        return folder_hash(self.folder)

    @property
    def kind(self) -> DepthKind:
        encoding = self._pipeline.encoding
        return "metric_z" if encoding.is_fixed else AFFINE_KINDS[encoding.space]

    def predict(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], focal_px: Sequence[float | None] | None = None
    ) -> list[DepthMap]:
        """Maps of the images' sizes; focal lengths are not used."""
        focal_lengths(images, focal_px)
        identity = Identity(self.name, self.weights, self.licence)
        maps = []
        for found in self._pipeline.depth_batch(list(images), steps=self.steps, ensemble=self.ensemble, seed=self.seed):
            valid = found.depth.valid & (found.confidence >= LEAST_CONFIDENCE)
            quality = {"valid_fraction": float(valid.mean()), "confidence": float(found.confidence.mean())}
            maps.append(replace(found.depth, valid=valid, source=self.name, origin=identity.origin(quality)))
        return maps
