"""Depth Anything V2 and Depth Pro as transformers publishes them: a folder with config, processor and weights.

Layouts and post-processing as in huggingface/transformers 5.23, `models/depth_anything`, `models/dpt` and
`models/depth_pro` (`image_processing_*.py`, `post_process_depth_estimation`); what the numbers mean, from the models'
cards: `depth_estimation_type` "relative" of Depth Anything is disparity up to scale and shift, "metric" is metres;
Depth Pro gives inverse depth over the image's width, metres once multiplied by width / focal length. Pictures are
prepared with Pillow: transformers' own processor of Depth Pro needs torchvision.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from gemvlm.curation.depth_teacher.teacher import Identity, Prepared, finish, focal_lengths, folder_hash, prepare
from gemvlm.depth_map import DepthKind, DepthMap, resample
from gemvlm.runtime import default_device

LICENCES = {
    "Depth-Anything-V2-Small": "Apache-2.0",
    "Depth-Anything-V2-Metric-Indoor-Small": "Apache-2.0",
    "Depth-Anything-V2-Metric-Outdoor-Small": "Apache-2.0",
    "Depth-Anything-V2-Base": "CC-BY-NC-4.0",
    "Depth-Anything-V2-Large": "CC-BY-NC-4.0",
    "DepthPro": "LicenseRef-Apple-AMLR",
}
"""Of published weights, by the beginning of their name (longest first); anything else is unknown until said."""


class _TransformersTeacher(ABC):
    """A network of transformers from a folder, whole batches of equally large pictures at a time."""

    model_type: str

    def __init__(self, folder: Path | str, name: str | None = None, licence: str | None = None, batch_size: int = 1):
        """`name` is the published one ("Depth-Anything-V2-Small-hf"; by default the folder's), `licence` an SPDX id (by
        default what is known of that name). With `batch_size` 1 a map is a function of its image to the last bit; more
        is faster on an accelerator and changes rounding. ValueError if the folder holds another kind of model.
        """
        from transformers import AutoModelForDepthEstimation

        self.folder = Path(folder)
        settings = _json(self.folder / "config.json")
        if settings.get("model_type") != self.model_type:
            raise ValueError(f"{self.folder}: model_type is {settings.get('model_type')!r}, wanted {self.model_type!r}")
        self.name = name or self.folder.name
        self.licence = licence or _licence(self.name)
        self.batch_size = batch_size
        self._processor = _json(self.folder / "preprocessor_config.json")
        self._device = default_device(None)
        loaded = AutoModelForDepthEstimation.from_pretrained(self.folder, local_files_only=True, dtype=torch.float32)
        self._model: Any = loaded.to(self._device).eval()

    @cached_property
    def weights(self) -> str:
        return folder_hash(self.folder)

    @property
    def identity(self) -> Identity:
        return Identity(self.name, self.weights, self.licence)

    def predict(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], focal_px: Sequence[float | None] | None = None
    ) -> list[DepthMap]:
        """Maps of the images' sizes. Pictures of one prepared size share a batch."""
        focal = focal_lengths(images, focal_px)
        prepared = [self._prepare(image) for image in images]
        maps: dict[int, DepthMap] = {}
        for rows in same_size_batches(prepared, self.batch_size):
            batch = torch.from_numpy(np.stack([prepared[row].values for row in rows])).to(self._device)
            with torch.inference_mode():
                outputs = self._model(batch)
            for at, row in enumerate(rows):
                maps[row] = self._map(outputs, at, images[row].shape[:2], focal[row])
        return [maps[row] for row in range(len(images))]

    @abstractmethod
    def _prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Prepared:
        """The image as the network wants it."""

    @abstractmethod
    def _map(self, outputs: Any, at: int, size: tuple[int, int], focal_px: float | None) -> DepthMap:
        """Row `at` of the network's outputs as a map of `size`."""

    def _normalised(self, image: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> Prepared:
        settings = self._processor
        resampling = Image.Resampling(settings.get("resample", Image.Resampling.BICUBIC))
        return prepare(image, height, width, settings["image_mean"], settings["image_std"], resampling)


class DepthAnythingV2(_TransformersTeacher):
    """Relative checkpoints give disparity up to scale and shift, metric ones metres (their focal length is the
    training data's: metres drift in other cameras). Zero disparity is infinitely far: valid, as the network says.
    """

    model_type = "depth_anything"

    @property
    def kind(self) -> DepthKind:
        return "metric_z" if self._model.config.depth_estimation_type == "metric" else "affine_disparity"

    def _prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Prepared:
        return self._normalised(image, *dpt_size(image.shape[0], image.shape[1], self._processor))

    def _map(self, outputs: Any, at: int, size: tuple[int, int], focal_px: float | None) -> DepthMap:
        return finish(outputs.predicted_depth[at].float().cpu().numpy(), size, self.kind, self.identity)


class DepthPro(_TransformersTeacher):
    """Metres from one picture. A known focal length is used; otherwise the network's own estimate of it."""

    model_type = "depth_pro"
    nearest_m, farthest_m = 1e-4, 1e4

    @property
    def kind(self) -> DepthKind:
        return "metric_z"

    def _prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Prepared:
        size = self._processor["size"]
        return self._normalised(image, size["height"], size["width"])

    def _map(self, outputs: Any, at: int, size: tuple[int, int], focal_px: float | None) -> DepthMap:
        width = size[1]
        if focal_px is None:
            if outputs.field_of_view is None:
                raise ValueError(f"{self.folder}: no estimate of the field of view in this checkpoint; give focal_px")
            fov = np.radians(float(outputs.field_of_view.reshape(-1)[at]))
            focal_px = 0.5 * width / float(np.tan(0.5 * fov))
        inverse = outputs.predicted_depth[at].float().cpu().numpy() * (width / focal_px)
        inverse, known = resample(inverse, np.isfinite(inverse), width, size[0])
        bounded = np.clip(inverse, 1 / self.farthest_m, 1 / self.nearest_m)
        return finish(1 / bounded, size, self.kind, self.identity, known)


def dpt_size(height: int, width: int, settings: dict[str, Any]) -> tuple[int, int]:
    """The (height, width) that a DPT processor resizes to: the wanted size or, with the aspect kept, the scale that is
    nearer to 1; each side rounded to its multiple.
    """
    wanted, multiple = settings["size"], settings.get("ensure_multiple_of", 1)
    scales = [wanted["height"] / height, wanted["width"] / width]
    if settings.get("keep_aspect_ratio", False):
        scales = [min(reversed(scales), key=lambda scale: abs(1 - scale))] * 2
    sides = (
        max(multiple, round(scale * side / multiple) * multiple)
        for scale, side in zip(scales, (height, width), strict=True)
    )
    tall, wide = sides
    return tall, wide


def same_size_batches(prepared: Sequence[Prepared], batch_size: int) -> list[list[int]]:
    """Rows of pictures of one size, at most `batch_size` together, in order of first appearance."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for row, item in enumerate(prepared):
        by_size.setdefault(item.values.shape, []).append(row)
    return [rows[i : i + batch_size] for rows in by_size.values() for i in range(0, len(rows), batch_size)]


def _licence(name: str) -> str:
    known = sorted((start for start in LICENCES if name.startswith(start)), key=len)
    return LICENCES[known[-1]] if known else "unknown"


def _json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable ({error}); give the folder of a published checkpoint") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: holds a {type(fields).__name__}, not settings; download the file again")
    return fields
