"""Depth as it leaves a server: the files that `DepthMap` writes, or JSON around one of them."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from gemvlm.depth_map import DepthMap
from gemvlm.inference import DepthPrediction
from gemvlm.serving.limits import Refusal
from gemvlm.serving.messages import DepthAnswer

Format = Literal["json", "png", "npz"]
MEDIA_TYPES: dict[Format, str] = {"json": "application/json", "png": "image/png", "npz": "application/x-npz"}
MILLIMETRE = 0.001


def wanted_format(accept: str) -> Format:
    """The first form that an Accept header names; JSON if it names none."""
    for entry in accept[:1000].split(","):
        for form, media_type in MEDIA_TYPES.items():
            if entry.split(";")[0].strip().lower() == media_type:
                return form
    return "json"


def depth_bytes(depth: DepthMap, form: Literal["png", "npz"]) -> tuple[bytes, str]:
    """The file as `DepthMap.save` writes it, and its media type. Refusal for a PNG of depth that has no unit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"depth.{form}"
        try:
            depth.save(path)
        except ValueError as error:
            message = str(error).removeprefix(f"{path}: ")
            raise Refusal(f"format: {message}", code="depth_not_png", param="format") from None
        return path.read_bytes(), MEDIA_TYPES[form]


def depth_json(prediction: DepthPrediction) -> DepthAnswer:
    """Depth and what its values mean; as .npz inside where a PNG in millimetres can't hold it."""
    depth = prediction.depth
    form: Literal["png16", "npz"] = "png16"
    try:
        content = depth_bytes(depth, "png")[0]
    except Refusal:
        form, content = "npz", depth_bytes(depth, "npz")[0]
    known = depth.values[depth.valid]
    near, far = np.percentile(known, [2, 98]) if known.size else (0.0, 0.0)
    return DepthAnswer(
        kind=depth.kind,
        unit=depth.unit,
        scale=MILLIMETRE if form == "png16" else None,
        source=depth.source,
        width=depth.values.shape[1],
        height=depth.values.shape[0],
        near=float(near),
        far=float(far),
        confidence=float(prediction.confidence.mean()),
        format=form,
        data=base64.b64encode(content).decode(),
    )
