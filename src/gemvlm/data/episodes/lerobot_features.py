"""What a LeRobot folder's `features` say of a column (names, a picture's size, depth), and pictures inside tables."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from gemvlm.data.episodes.video import LARGEST_SIDE
from gemvlm.depth_map import DepthMap

LARGEST_VECTOR = 4096
_CAMERA_WORDS = re.compile(r"(^|[._])(?:images?|rgb|color|depth)(?=[._]|$)")


def picture_size(spec: Mapping[str, Any], where: str) -> tuple[int, int]:
    """(height, width), whichever way round the feature names its axes. ValueError if it is no picture's."""
    shape, names = spec.get("shape"), spec.get("names")
    if not isinstance(shape, list) or len(shape) not in (2, 3) or not all(isinstance(n, int) for n in shape):
        raise ValueError(f"{where}: shape {shape!r} is not that of a picture")
    first = isinstance(names, list) and len(names) == 3 and str(names[0]).startswith("channel")
    first = first or (names is None and len(shape) == 3 and shape[0] in (1, 3) and shape[2] > 4)
    height, width = shape[1:] if first else shape[:2]
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        raise ValueError(f"{where}: {width} x {height} pixels is not a picture's size")
    return height, width


def feature_info(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Details of a picture: how it is coded, whether it is depth; {} where the writer gave none."""
    info = spec.get("info") or spec.get("video_info") or {}
    return info if isinstance(info, dict) else {}


def is_depth(spec: Mapping[str, Any]) -> bool:
    """Whether a picture is one of depth, by LeRobot's own mark."""
    info = feature_info(spec)
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def camera_name(key: str) -> str:
    """`observation.images.front`, `observation.images.front_depth` and `observation.depth.front` name one camera."""
    return _CAMERA_WORDS.sub("", key).strip("._")


def dimension_names(key: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
    """A vector's names, `KEY_0`, `KEY_1`, ... where there are none. ValueError if it is no vector."""
    shape, names = spec.get("shape"), spec.get("names")
    if (
        not isinstance(shape, list)
        or len(shape) != 1
        or not isinstance(shape[0], int)
        or not 0 < shape[0] <= LARGEST_VECTOR
    ):
        raise ValueError(
            f"meta/info.json: feature {key}: shape {shape!r} is not that of a vector of 1..{LARGEST_VECTOR}"
        )
    if isinstance(names, dict) and len(names) == 1:
        names = next(iter(names.values()))
    if isinstance(names, list) and len(names) == shape[0]:
        return tuple(map(str, names))
    return tuple(f"{key}_{i}" for i in range(shape[0]))


def decoded(data: bytes, where: str) -> Image.Image:
    """A picture of encoded bytes. ValueError, with `where`, if it is damaged."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where}: not a readable picture ({error}); fetch the file again") from error


def depth_picture(image: Image.Image, unit: str | None, where: str) -> DepthMap:
    """Floats are metres and integers millimetres unless the feature's `depth_unit` says otherwise; 0 is no value."""
    values = np.array(image)
    if values.ndim != 2:
        raise ValueError(f"{where}: a depth picture has one channel, this has mode {image.mode!r}")
    metres = values.astype(np.float32)
    if unit == "mm" or (unit is None and not np.issubdtype(values.dtype, np.floating)):
        metres /= 1000
    valid = np.isfinite(metres) & (metres > 0)
    return DepthMap(np.where(valid, metres, 0).astype(np.float32), valid, "metric_z", "m", where)
