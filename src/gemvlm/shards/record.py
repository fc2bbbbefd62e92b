"""A sample as a row: plain values under the names that tables and records share, without its pixels.

`media` names a frame's picture together with its depth and what the depth's numbers mean, by SHA-256: the picture's own
if it has no depth. Whatever is derived from a frame (its depth file, latents) goes by that name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import Alignment, DepthOrigin
from gemvlm.sample import Box, Frame, Place, Point, Provenance, Region, Sample, Turn

Row = dict[str, Any]


@dataclass(frozen=True)
class StoredFrame(Frame):
    """A frame as it was read. A changed copy (`dataclasses.replace`) forgets `media`: what is derived fits no more."""

    media: str = field(default="", init=False, compare=False)


def to_json(row: Row) -> bytes:
    """Canonical: equal rows give equal bytes. ValueError for what JSON has no word for, NaN and infinity among it."""
    return json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def sample_row(sample: Sample, frames: Sequence[Row]) -> Row:
    """The row of a sample whose frames have the given rows."""
    terms = sample.provenance
    return {
        "id": sample.id,
        "source": sample.source,
        "scene": sample.scene,
        "licence": terms.licence,
        "split": terms.split,
        "version": terms.version,
        "record": terms.record,
        "dialogue": sample.dialogue,
        "system": sample.system,
        "frames": list(frames),
        **turn_rows(sample.turns),
        "meta": dict(sample.meta),
    }


def turn_rows(turns: Sequence[Turn]) -> Row:
    """The columns that turns fill: themselves, and their families without repetition."""
    return {"families": sorted({turn.family for turn in turns}), "turns": [_turn_row(turn) for turn in turns]}


def sample_of(row: Row, frames: Sequence[Frame]) -> Sample:
    return Sample(
        id=row["id"],
        frames=tuple(frames),
        turns=tuple(_turn_of(turn) for turn in row["turns"]),
        scene=row["scene"],
        source=row["source"],
        meta=row["meta"],
        provenance=Provenance(row["version"], row["split"], row["licence"], row["record"]),
        dialogue=row["dialogue"],
        system=row["system"],
    )


def frame_row(frame: Frame, image: bytes, depth: Row | None) -> Row:
    """The row of a frame whose picture's file is `image` and whose depth has the row `depth` (see `depth_row`)."""
    digest = hashlib.sha256(image).hexdigest()
    row: Row = {
        "image": digest,
        "media": digest,
        "height": frame.image.shape[0],
        "width": frame.image.shape[1],
        "publishers": frame.encoded is not None,
        "time_s": _real(frame.time_s),
        "camera": None if frame.view is None else _camera_row(frame.view.camera),
        "camera_to_world": None if frame.view is None else list(map(float, frame.view.camera_to_world.ravel())),
        "depth": depth,
    }
    if depth is not None:
        meaning = {name: depth[name] for name in ("sha256", "kind", "unit", "format", "metres_per_count")}
        along = row["camera"] if depth["kind"] == "ray_distance" else None
        row["media"] = hashlib.sha256(to_json({"image": digest, "depth": meaning, "camera": along})).hexdigest()
    return row


def frame_of(row: Row, image: np.ndarray, encoded: bytes, depth: DepthMap | None) -> StoredFrame:
    view = None
    if row["camera"] is not None:
        pose = np.array(row["camera_to_world"], dtype=np.float64).reshape(4, 4)
        view = View(Camera(**row["camera"]), pose)
    frame = StoredFrame(image, depth, view, encoded if row["publishers"] else None, row["time_s"])
    object.__setattr__(frame, "media", row["media"])
    return frame


def depth_row(depth: DepthMap, content: bytes, form: str, metres_per_count: float | None) -> Row:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "kind": depth.kind,
        "unit": depth.unit,
        "source": depth.source,
        "format": form,
        "metres_per_count": metres_per_count,
        "origin": None if depth.origin is None else _origin_row(depth.origin),
    }


def depth_of(row: Row, values: np.ndarray, valid: np.ndarray) -> DepthMap:
    origin = None
    if row["origin"] is not None:
        fields = dict(row["origin"])
        alignment = fields.pop("alignment")
        origin = DepthOrigin(**fields, alignment=None if alignment is None else Alignment(**alignment))
    return DepthMap(values, valid, row["kind"], row["unit"], row["source"], origin)


def _camera_row(camera: Camera) -> Row:
    sizes = ("width", "height")
    return {name: int(value) if name in sizes else float(value) for name, value in vars(camera).items()}


def _origin_row(origin: DepthOrigin) -> Row:
    fitted = origin.alignment
    alignment = None
    if fitted is not None:
        reals = {name: float(getattr(fitted, name)) for name in ("scale", "shift", "inliers")}
        alignment = {**reals, "pixels": int(fitted.pixels)}
    quality = {name: float(score) for name, score in origin.quality.items()}
    return {**vars(origin), "alignment": alignment, "quality": quality}


def _real(value: float | None) -> float | None:
    """As a column of reals has it: 1 and 1.0 are one value."""
    return None if value is None else float(value)


def _turn_row(turn: Turn) -> Row:
    fields: Row = {name: getattr(turn, name) for name in turn.__dataclass_fields__}
    return {
        **fields,
        "places": [_place_row(place) for place in turn.places],
        "options": list(turn.options),
        "tolerance": _real(turn.tolerance),
        "region": None if turn.region is None else _region_row(turn.region),
        "regions": [_region_row(region) for region in turn.regions],
        "cues": dict(turn.cues),
        "subsets": list(turn.subsets),
    }


def _turn_of(row: Mapping[str, Any]) -> Turn:
    return Turn(**{
        **row,
        "places": tuple(_place_of(place) for place in row["places"]),
        "options": tuple(row["options"]),
        "region": None if row["region"] is None else _region_of(row["region"]),
        "regions": tuple(_region_of(region) for region in row["regions"]),
        "subsets": tuple(row["subsets"]),
    })  # fmt: skip


def _region_row(region: Region) -> Row:
    return {**vars(region), "runs": list(region.runs)}


def _region_of(row: Row) -> Region:
    return Region(row["height"], row["width"], tuple(row["runs"]))


def _place_row(place: Place) -> list[float]:
    values = (place.x, place.y) if isinstance(place, Point) else (place.x0, place.y0, place.x1, place.y1)
    return list(map(float, values))


def _place_of(values: Sequence[float]) -> Place:
    return Point(*values) if len(values) == 2 else Box(*values)
