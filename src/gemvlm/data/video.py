"""A video as evenly spaced frames, the first and the last included (PyAV, extra `curate`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import UInt8

Picture = UInt8[np.ndarray, "H W 3"]

LARGEST_PIXELS = 128 * 2**20
LONGEST_VIDEO = 500_000
"""Frames of a video, counted before any is decoded."""
MOST_FRAMES = 1024


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` frames at equal distances from the first to the last, as VSI-Bench takes them.

    linspace(0, count - 1, wanted) cut to whole numbers; all frames if there are fewer.
    """
    if not 1 <= wanted <= MOST_FRAMES:
        raise ValueError(f"{wanted} frames of a video; show between 1 and {MOST_FRAMES}")
    return np.linspace(0, count - 1, min(wanted, count)).astype(int).tolist()


def video_frames(source: Any, frames: int) -> list[Picture]:
    """`frames` frames of a path or an open binary file. ValueError if it is too long, too large or damaged."""
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
