"""Depth Anything 3, its network called directly (extra: the package `depth_anything_3` of ByteDance-Seed).

Read in ByteDance-Seed/Depth-Anything-3: `src/depth_anything_3/model/da3.py` (commit 837b60c), `api.py` (11a70dd) and
`utils/io/input_processor.py` (4da6309). The package's own `inference` crops pictures of different sizes to the smallest
and fills the sky from an unseeded sample over the whole batch, and even a single forward pass does the latter; so the
backbone and the head are called here, one picture as one set of one view, and sky is left without depth.

The networks give depth, not disparity. DA3METRIC's metres are focal length * output / 300, the focal length in pixels
of the size that the network sees; without it, and from the other checkpoints, depth is known up to a scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from gemvlm.curation.depth_teacher.teacher import Identity, Prepared, finish, focal_lengths, folder_hash, prepare
from gemvlm.depth_map import DepthKind, DepthMap
from gemvlm.runtime import default_device

LICENCES = {
    "DA3MONO-LARGE": "Apache-2.0",
    "DA3METRIC-LARGE": "Apache-2.0",
    "DA3-BASE": "Apache-2.0",
    "DA3-SMALL": "Apache-2.0",
    "DA3-LARGE": "CC-BY-NC-4.0",
    "DA3-GIANT": "CC-BY-NC-4.0",
    "DA3NESTED-GIANT-LARGE": "CC-BY-NC-4.0",
}
"""By the beginning of the published name: the "-1.1" of a name changes no terms."""

PATCH = 14
LONG_SIDE = 504
SKY_SCORE = 0.3
METRIC_FOCAL = 300.0
DEPTH_FLOOR = 1e-3


class DepthAnything3:
    """A checkpoint of Depth Anything 3. Nested ones are refused: they mix two networks over all their views."""

    def __init__(self, folder: Path | str, name: str | None = None, licence: str | None = None):
        """`name` is the published one ("DA3MONO-LARGE"; by default the folder's). ImportError without the package."""
        try:
            from depth_anything_3.api import DepthAnything3 as Published
        except ImportError as error:
            raise ImportError(
                "Depth Anything 3 needs its own package: pip install "
                "'depth-anything-3 @ git+https://github.com/ByteDance-Seed/Depth-Anything-3'"
            ) from error
        self.folder = Path(folder)
        self.name = name or self.folder.name
        if self.name.upper().startswith("DA3NESTED"):
            raise ValueError(f"{self.name}: nested checkpoints can't label single pictures; use DA3MONO or DA3METRIC")
        known = next((terms for start, terms in LICENCES.items() if self.name.upper().startswith(start)), "unknown")
        self.licence = licence or known
        self._device = default_device(None)
        self._network: Any = Published.from_pretrained(str(self.folder)).model.to(self._device).eval()

    @cached_property
    def weights(self) -> str:
        return folder_hash(self.folder)

    @property
    def identity(self) -> Identity:
        return Identity(self.name, self.weights, self.licence)

    @property
    def is_metric(self) -> bool:
        return self.name.upper().startswith("DA3METRIC")

    @property
    def kind(self) -> DepthKind:
        return "metric_z" if self.is_metric else "affine_depth"

    def predict(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], focal_px: Sequence[float | None] | None = None
    ) -> list[DepthMap]:
        """One picture at a time. Without a focal length DA3METRIC's map too is only known up to its scale."""
        pairs = zip(images, focal_lengths(images, focal_px), strict=True)
        return [self._predict(image, focal) for image, focal in pairs]

    def _predict(self, image: UInt8[np.ndarray, "H W 3"], focal_px: float | None) -> DepthMap:
        seen = self._prepare(image, focal_px)
        pixels = torch.from_numpy(seen.values)[None, None].to(self._device)
        low = torch.autocast("cuda", torch.bfloat16) if self._device.type == "cuda" else nullcontext()
        with torch.inference_mode():
            with low:
                features, _ = self._network.backbone(pixels, cam_token=None, export_feat_layers=[])
            output = self._network.head(features, *pixels.shape[-2:], patch_start_idx=0)
        depth = output["depth"].float().cpu().numpy().reshape(pixels.shape[-2:])
        valid, quality = depth > DEPTH_FLOOR, {}
        if "sky" in output:
            sky = output["sky"].float().cpu().numpy().reshape(depth.shape) >= SKY_SCORE
            valid, quality = valid & ~sky, {"sky": float(sky.mean())}
        if not self.is_metric or seen.focal_px is None:
            return finish(depth, image.shape[:2], "affine_depth", self.identity, valid, quality)
        metres = depth * (seen.focal_px / METRIC_FOCAL)
        return finish(metres, image.shape[:2], "metric_z", self.identity, valid, quality)

    def _prepare(self, image: UInt8[np.ndarray, "H W 3"], focal_px: float | None) -> Prepared:
        """The long side at 504, both sides at the nearest multiple of 14."""
        scale = LONG_SIDE / max(image.shape[:2])
        height, width = (max(PATCH, round(round(side * scale) / PATCH) * PATCH) for side in image.shape[:2])
        return prepare(image, height, width, focal_px=focal_px)
