"""The one interface behind which every depth network stands, and what its maps say about themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

from gemvlm.depth_map import DepthKind, DepthMap, resample
from gemvlm.depth_map.origin import DepthOrigin

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".json")


@runtime_checkable
class DepthTeacher(Protocol):
    """Images in, depth maps out, each of its image's size.

    An image's map is a function of that image (and its focal length) alone: never of what shares its batch, of chance
    or of time. `kind` is what `predict` gives where it is told the focal length, should it need one.
    """

    @property
    def name(self) -> str: ...

    @property
    def weights(self) -> str:
        """A hash of the weights, or the revision under which they are published."""
        ...

    @property
    def licence(self) -> str: ...

    @property
    def kind(self) -> DepthKind: ...

    def predict(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], focal_px: Sequence[float | None] | None = None
    ) -> list[DepthMap]:
        """`focal_px` is each image's focal length in its own pixels, None where it is unknown."""
        ...


@dataclass(frozen=True)
class Identity:
    """What is written into every map of a teacher."""

    name: str
    weights: str
    licence: str

    def origin(self, quality: Mapping[str, float] | None = None) -> DepthOrigin:
        return DepthOrigin("teacher", self.name, self.weights, self.licence, quality=dict(quality or {}))


@dataclass(frozen=True)
class Prepared:
    """An image as a network wants it, with the focal length that goes with that size."""

    values: Float32[np.ndarray, "3 h w"]
    focal_px: float | None


def prepare(
    image: UInt8[np.ndarray, "H W 3"],
    height: int,
    width: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
    focal_px: float | None = None,
) -> Prepared:
    """Resized with Pillow (antialiased) and normalised; the focal length changes with the mean of both scales."""
    resized = np.asarray(Image.fromarray(image).resize((width, height), resampling), dtype=np.float32) / 255
    scale = (width / image.shape[1] + height / image.shape[0]) / 2
    values = ((resized - np.array(mean, np.float32)) / np.array(std, np.float32)).transpose(2, 0, 1)
    return Prepared(np.ascontiguousarray(values, np.float32), None if focal_px is None else focal_px * scale)


def finish(
    values: Float[np.ndarray, "h w"],
    size: tuple[int, int],
    kind: DepthKind,
    identity: Identity,
    valid: Bool[np.ndarray, "h w"] | None = None,
    quality: Mapping[str, float] | None = None,
) -> DepthMap:
    """A network's output as a map of the image's size (height, width), without values that can't be depth.

    Pixels that are not finite (or, where the kind is metric, not positive) are invalid.
    """
    metric = kind in ("metric_z", "ray_distance")
    known = np.isfinite(values) & (np.ones(values.shape, bool) if valid is None else valid)
    if metric:
        known &= values > 0
    filled, known = resample(np.where(known, values, 0).astype(np.float32), known, size[1], size[0])
    origin = identity.origin({"valid_fraction": float(known.mean()), **(quality or {})})
    return DepthMap(filled, known, kind, "m" if metric else "", identity.name, origin)


def focal_lengths(images: Sequence[Any], focal_px: Sequence[float | None] | None) -> list[float | None]:
    """One focal length per image. ValueError if their numbers differ or one is not positive and finite."""
    focal: list[float | None] = [None] * len(images) if focal_px is None else list(focal_px)
    if len(focal) != len(images) or any(f is not None and not 0 < f < float("inf") for f in focal):
        raise ValueError(f"depth teacher: {len(images)} images but focal lengths {focal}; give one per image, or None")
    return focal


def folder_hash(folder: Path) -> str:
    """SHA-256 of names and contents of the weight and configuration files in a checkpoint's folder."""
    digest = hashlib.sha256()
    files = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)
    if not any(path.suffix != ".json" for path in files):
        raise ValueError(f"{folder}: no weights ({', '.join(WEIGHT_SUFFIXES[:2])}); give the folder of a checkpoint")
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return "sha256:" + digest.hexdigest()


@dataclass(frozen=True)
class FunctionTeacher:
    """Any function from one image (and its focal length or None) to a map, as a teacher: how a stranger's joins in."""

    name: str
    weights: str
    licence: str
    kind: DepthKind
    function: Callable[[np.ndarray, float | None], np.ndarray] = field(repr=False)

    def predict(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], focal_px: Sequence[float | None] | None = None
    ) -> list[DepthMap]:
        """The function's values, one image at a time; of another size they are resampled to the image's."""
        identity = Identity(self.name, self.weights, self.licence)
        pairs = zip(images, focal_lengths(images, focal_px), strict=True)
        return [finish(self.function(image, f), image.shape[:2], self.kind, identity) for image, f in pairs]
