"""Pictures and videos of an item as RGB arrays; a video is shown as evenly spaced frames, first and last included."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from gemvlm.data.video import LARGEST_PIXELS, video_frames
from gemvlm.evaluation.benchmark import Item, Media

Picture = UInt8[np.ndarray, "H W 3"]

KEPT_VIDEOS = 3
"""Decoded videos that are kept: a benchmark asks many questions about each."""


def frames_of(item: Item) -> list[list[Picture]]:
    """The frames of each medium of an item: one for a picture, `item.frames` for a video.

    ValueError naming the medium if it can't be decoded.
    """
    return [show(media, item.frames) for media in item.media]


def show(media: Media, frames: int) -> list[Picture]:
    """A picture as it is stored (no EXIF rotation: coordinates refer to stored pixels), or frames of a video."""
    name = f"{media.kind} of {len(media.content)} bytes" if isinstance(media.content, bytes) else str(media.content)
    try:
        source = io.BytesIO(media.content) if isinstance(media.content, bytes) else media.content
        if media.kind == "image":
            return [_picture(source)]
        return _video_file(source, frames) if isinstance(source, Path) else video_frames(source, frames)
    except ImportError:
        raise
    except UnidentifiedImageError as error:  # its words hold an address of memory, which differs every time
        raise ValueError(f"{name}: can't be decoded (no picture); fetch it again") from error
    except (ValueError, LookupError, OSError, SyntaxError, ArithmeticError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: can't be decoded ({error}); fetch it again") from error


def _picture(source: Any) -> Picture:
    with Image.open(source) as image:
        if image.width * image.height > LARGEST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels; at most {LARGEST_PIXELS} are decoded")
        return np.array(image.convert("RGB"))


@lru_cache(maxsize=KEPT_VIDEOS)
def _video_file(path: Path, frames: int) -> list[Picture]:
    return video_frames(path, frames)


def shown(frames: Sequence[Sequence[Picture]]) -> int:
    """How many pictures that are."""
    return sum(len(each) for each in frames)
