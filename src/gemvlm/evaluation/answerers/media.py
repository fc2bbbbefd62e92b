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

from gemvlm.evaluation.benchmark import Item, Media

Picture = UInt8[np.ndarray, "H W 3"]

LARGEST_PIXELS = 128 * 2**20
LONGEST_VIDEO = 500_000
"""Frames of a video, counted before any is decoded."""
MOST_FRAMES = 1024
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
        return _video_file(source, frames) if isinstance(source, Path) else _video(source, frames)
    except ImportError:
        raise
    except UnidentifiedImageError as error:  # its words hold an address of memory, which differs every time
        raise ValueError(f"{name}: can't be decoded (no picture); fetch it again") from error
    except (ValueError, LookupError, OSError, SyntaxError, ArithmeticError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: can't be decoded ({error}); fetch it again") from error


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` frames at equal distances from the first to the last, as VSI-Bench takes them.

    linspace(0, count - 1, wanted) cut to whole numbers; all frames if there are fewer.
    """
    if not 1 <= wanted <= MOST_FRAMES:
        raise ValueError(f"{wanted} frames of a video; show between 1 and {MOST_FRAMES}")
    return np.linspace(0, count - 1, min(wanted, count)).astype(int).tolist()


def _picture(source: Any) -> Picture:
    with Image.open(source) as image:
        if image.width * image.height > LARGEST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels; at most {LARGEST_PIXELS} are decoded")
        return np.array(image.convert("RGB"))


@lru_cache(maxsize=KEPT_VIDEOS)
def _video_file(path: Path, frames: int) -> list[Picture]:
    return _video(path, frames)


def _video(source: Any, frames: int) -> list[Picture]:
    try:
        import av
    except ImportError as error:
        raise ImportError("reading videos needs PyAV: pip install 'gemvlm[curate]'") from error
    times = []
    with av.open(source) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.pts is not None:
                times.append(packet.pts)
            if len(times) > LONGEST_VIDEO:
                raise ValueError(f"more than {LONGEST_VIDEO} frames")
    if not times:
        raise ValueError("no frame in it")
    times.sort()
    wanted = {times[index] for index in evenly(len(times), frames)}
    if hasattr(source, "seek"):
        source.seek(0)
    found: dict[int, Picture] = {}
    with av.open(source) as container:
        for frame in container.decode(container.streams.video[0]):
            if frame.pts in wanted:
                if frame.width * frame.height > LARGEST_PIXELS:
                    raise ValueError(f"frames of {frame.width} x {frame.height} pixels")
                found[frame.pts] = frame.to_ndarray(format="rgb24")
            if len(found) == len(wanted):
                break
    if len(found) < len(wanted):
        raise ValueError(f"only {len(found)} of {len(wanted)} chosen frames can be decoded")
    return [found[time] for time in sorted(found)]


def shown(frames: Sequence[Sequence[Picture]]) -> int:
    """How many pictures that are."""
    return sum(len(each) for each in frames)
