"""What a depth value means: its kind, unit, validity and origin travel with it.

Kinds are told apart because mixing them up is silent and ruinous:

    metric_z          distance along the optical axis, in metres
    ray_distance      distance along the ray through the pixel, in metres
    affine_depth, affine_log_depth                z or log z, up to an unknown scale and shift (larger = farther)
    affine_disparity, affine_sqrt_disparity       1/z or sqrt(1/z), up to an unknown scale and shift (larger = nearer)

On disk a metric map is a 16-bit PNG in millimetres (0 = invalid) with a JSON beside it; any map is a float32 `.npz`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt16

from gemvlm.camera import Camera
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.depth_map.resampling import resample

Space = Literal["depth", "disparity", "log", "sqrt_disparity"]
DepthKind = Literal[
    "metric_z", "ray_distance", "affine_depth", "affine_disparity", "affine_log_depth", "affine_sqrt_disparity"
]
METRIC_KINDS: tuple[DepthKind, ...] = ("metric_z", "ray_distance")
AFFINE_KINDS: dict[Space, DepthKind] = {
    "depth": "affine_depth",
    "disparity": "affine_disparity",
    "log": "affine_log_depth",
    "sqrt_disparity": "affine_sqrt_disparity",
}

MILLIMETRES = 1000
LARGEST_MILLIMETRES = 65535


@dataclass(frozen=True)
class DepthMap:
    """Depth per pixel. `values` are meaningless where `valid` is False; `source` says in a word who made them, `origin`
    in full.
    """

    values: Float32[np.ndarray, "H W"]
    valid: Bool[np.ndarray, "H W"]
    kind: DepthKind
    unit: str
    source: str
    origin: DepthOrigin | None = None

    def __post_init__(self) -> None:
        if self.values.shape != self.valid.shape:
            raise ValueError(
                f"depth from {self.source!r}: values are {self.values.shape} but valid is {self.valid.shape}"
            )
        if self.kind not in get_args(DepthKind):
            raise ValueError(f"depth from {self.source!r}: kind {self.kind!r} is not one of {get_args(DepthKind)}")
        if self.unit != ("m" if self.is_metric else ""):
            raise ValueError(f"depth from {self.source!r}: kind {self.kind} can't have the unit {self.unit!r}")
        known = self.values if self.valid.all() else self.values[self.valid]
        least, most = known.min(initial=1), known.max(initial=1)  # NaN if one is NaN
        if not np.isfinite(most - least) or (self.is_metric and least <= 0):
            not_finite = int(np.count_nonzero(~np.isfinite(known)))
            not_positive = int(np.count_nonzero(known <= 0)) if self.is_metric else 0
            raise ValueError(
                f"depth from {self.source!r}: of {known.size} valid pixels {not_finite} are NaN or infinite and "
                f"{not_positive} are zero or negative; mark them invalid or repair the source"
            )

    @property
    def is_metric(self) -> bool:
        return self.kind in METRIC_KINDS

    @classmethod
    def from_values(cls, values: Float[np.ndarray, "H W"], kind: DepthKind = "metric_z", source: str = "") -> DepthMap:
        """A map whose pixels are all valid, except exact zeros where the kind is metric."""
        values = values.astype(np.float32)
        metric = kind in METRIC_KINDS
        return cls(values, values != 0 if metric else np.ones(values.shape, bool), kind, "m" if metric else "", source)

    @classmethod
    def from_file(cls, path: Path | str) -> DepthMap:
        """Reads what `save` wrote: a `.npz`, or a 16-bit PNG with its JSON. ValueError names file and remedy."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: no such depth file; check the name")
        return _read_npz(path) if path.suffix == ".npz" else _read_png(path)

    def save(self, path: Path | str) -> None:
        """Writes `.npz` (float32, any kind) or `.png` (16-bit millimetres and a JSON beside it, metric kinds only)."""
        path = Path(path)
        if path.suffix == ".npz":
            meta = {"kind": self.kind, "unit": self.unit, "source": self.source}
            np.savez_compressed(path, values=self.values, valid=self.valid, meta=np.array(json.dumps(meta)))
        elif path.suffix == ".png":
            self._save_png(path)
        else:
            raise ValueError(f"{path}: depth is written as .npz or .png, not {path.suffix!r}")

    def _save_png(self, path: Path) -> None:
        from PIL import Image

        if not self.is_metric:
            raise ValueError(f"{path}: {self.kind} has no unit, so millimetres would be a lie; save it as .npz")
        millimetres = np.where(self.valid, np.round(self.values * MILLIMETRES), 0)
        lost = int(np.count_nonzero(self.valid & ((millimetres < 1) | (millimetres > LARGEST_MILLIMETRES))))
        if lost:
            raise ValueError(f"{path}: {lost} pixels lie outside 1 mm .. 65.535 m; save this depth as .npz")
        Image.fromarray(millimetres.astype(np.uint16)).save(path)
        meta = {
            "kind": self.kind,
            "unit": "m",
            "scale": 1 / MILLIMETRES,
            "source": self.source,
            "encoding": "uint16 = round(metres / scale), 0 = invalid",
        }
        path.with_suffix(".json").write_text(json.dumps(meta, indent=2) + "\n")

    def to_z(self, camera: Camera) -> DepthMap:
        """Distance along the ray to z-depth: z = r / |ray with z = 1|. Other kinds are returned as they are."""
        if self.kind != "ray_distance":
            return self
        if (camera.height, camera.width) != self.values.shape:
            raise ValueError(
                f"depth from {self.source!r} is {self.values.shape} but the camera is {(camera.height, camera.width)} "
                "(height, width); resize one to the other"
            )
        lengths = np.linalg.norm(camera.rays(), axis=-1)
        return replace(self, values=(self.values / lengths).astype(np.float32), kind="metric_z")

    def resized(self, width: int, height: int) -> DepthMap:
        """Resampled by `resample`: only valid pixels contribute, and half of a pixel's weight must be valid."""
        values, valid = resample(self.values, self.valid, width, height)
        return replace(self, values=values, valid=valid)


def to_space(z: Float[np.ndarray, "*N"], space: Space) -> Float[np.ndarray, "*N"]:
    """z-depth (> 0) to z, 1/z, log z or sqrt(1/z)."""
    if space == "log":
        return np.log(z)
    if space == "depth":
        return z
    return 1 / z if space == "disparity" else np.sqrt(1 / z)


def from_space(scalar: Float[np.ndarray, "*N"], space: Space) -> Float[np.ndarray, "*N"]:
    """Undoes `to_space`; scalars that no depth has (a disparity of 0 or less) become the far end, 1 / 1e-6 m."""
    if space == "log":
        return np.exp(scalar)
    if space == "depth":
        return scalar
    positive = np.maximum(scalar, 1e-6 if space == "disparity" else 1e-3)
    return 1 / positive if space == "disparity" else 1 / positive**2


def space_values(depth: DepthMap, space: Space) -> Float32[np.ndarray, "H W"]:
    """The map in `space`: exact for z-depth, up to a scale or an affine map for relative kinds; 0 if invalid."""
    if depth.kind == AFFINE_KINDS[space]:
        return np.where(depth.valid, depth.values, 0)
    disparity = depth.kind == "affine_disparity"
    known_to_scale = disparity or depth.kind == "affine_depth"
    if depth.kind != "metric_z" and not (known_to_scale and (depth.values[depth.valid] > 0).all()):
        raise ValueError(
            f"depth from {depth.source!r} is {depth.kind} and can't be expressed as {space}; make it z-depth first"
        )
    if depth.valid.all():
        return np.asarray(to_space(1 / depth.values if disparity else depth.values, space))
    safe = np.where(depth.valid, depth.values, np.float32(1))
    return np.where(depth.valid, to_space(1 / safe if disparity else safe, space), np.float32(0))


def _read_npz(path: Path) -> DepthMap:
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            return DepthMap(file["values"], file["valid"], meta["kind"], meta["unit"], meta["source"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a depth file of ours (values, valid, meta): {error}") from error


def _read_png(path: Path) -> DepthMap:
    millimetres = read_png16(path)
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise ValueError(f"{path}: {beside.name} is missing: kind and unit are unknown; write it (kind, scale, source)")
    try:
        meta = json.loads(beside.read_text())
        kind, scale, source = meta["kind"], float(meta["scale"]), meta["source"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{beside}: needs kind, scale (metres per count) and source: {error!r}") from error
    if kind not in METRIC_KINDS:
        raise ValueError(f"{beside}: {kind!r} has no unit, a 16-bit PNG holds {METRIC_KINDS}; save others as .npz")
    return DepthMap((millimetres * scale).astype(np.float32), millimetres > 0, kind, "m", source)


def read_png16(path: Path) -> UInt16[np.ndarray, "H W"]:
    """The counts (H, W) of a 16-bit single-channel PNG as uint16. ValueError if unreadable or of another sort."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            counts, mode = np.array(image), image.mode
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); write the file again or remove it") from error
    if not mode.startswith("I") or counts.ndim != 2:
        raise ValueError(f"{path}: depth must be a 16-bit one-channel PNG, this has mode {mode!r}; export raw counts")
    return counts.astype(np.uint16)
