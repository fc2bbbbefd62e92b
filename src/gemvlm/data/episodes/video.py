"""Frames of a constant-rate video by their index, read at random, and videos written frame by frame (extra `curate`).

Colour is H.264 with a key frame every second frame, so that any frame costs at most two decodes; depth codes are
lossless HEVC of one 12-bit channel (`gray12le`).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16

KEY_FRAME_EVERY = 2
SEEK_SECONDS = 1.0
"""A jump that is longer than this seeks, a shorter one decodes what lies between."""
LARGEST_SIDE = 8192


def decode_frames(
    path: Path, times_s: Sequence[float], fps: float, depth: bool = False
) -> list[UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W"]]:
    """The frames shown at `times_s` (seconds from the video's start), in their order: RGB, or 12-bit codes for depth.

    ValueError names the file if it is unreadable, or if no frame lies within half a frame of a time.
    """
    av = _av()
    order = sorted(range(len(times_s)), key=lambda i: times_s[i])
    found: dict[int, Any] = {}
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            if max(stream.codec_context.width, stream.codec_context.height) > LARGEST_SIDE:
                raise ValueError(
                    f"{path}: {stream.codec_context.width} x {stream.codec_context.height} pixels is too large"
                )
            base, first = float(stream.time_base), float((stream.start_time or 0) * stream.time_base)
            frames, last = None, None
            for i in order:
                wanted = first + times_s[i]
                if last is None or not last[0] <= wanted + 0.5 / fps or wanted - last[0] > SEEK_SECONDS:
                    container.seek(max(0, int(np.floor((wanted + 0.25 / fps) / base))), stream=stream, backward=True)
                    frames, last = container.decode(stream), None
                while last is None or last[0] < wanted - 0.5 / fps:
                    frame = next(frames, None)  # type: ignore[arg-type]
                    if frame is None or frame.pts is None:
                        break
                    last = (frame.pts * base, frame)
                if last is None or abs(last[0] - wanted) > 0.5 / fps:
                    raise ValueError(
                        f"{path}: no frame at {times_s[i]:.3f} s (the nearest read is "
                        f"{'none' if last is None else f'{last[0] - first:.3f} s'}); the video is shorter than its "
                        "table says, or damaged: fetch it again"
                    )
                found[i] = _codes(last[1], path) if depth else last[1].to_ndarray(format="rgb24")
    except (av.error.FFmpegError, OSError, IndexError, TypeError, EOFError) as error:
        raise ValueError(f"{path}: not a readable video ({error}); fetch it again or remove its episodes") from error
    return [found[i] for i in range(len(times_s))]


def _codes(frame: Any, path: Path) -> UInt16[np.ndarray, "H W"]:
    """The luma plane as it is: converting it to another pixel format would stretch its range."""
    bits = frame.format.components[0].bits
    if bits != 12:
        raise ValueError(
            f"{path}: {frame.format.name} has {bits} bits, a depth video 12; is this feature marked wrongly?"
        )
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)[: frame.height, : frame.width].copy()


class VideoWriter:
    """One MP4 file that grows frame by frame. `depth` takes 12-bit codes (H, W; uint16), else RGB (H, W, 3; uint8)."""

    def __init__(self, path: Path, height: int, width: int, fps: float, depth: bool = False) -> None:
        if not depth and (height % 2 or width % 2):
            raise ValueError(f"{path}: {width} x {height} pixels: H.264 needs even sides; crop or resize the frames")
        av = _av()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._av, self.path, self.depth, self.count = av, path, depth, 0
        self._container = av.open(str(path), "w")
        codec, pixels = ("libx265", "gray12le") if depth else ("libx264", "yuv420p")
        self._rate = Fraction(fps).limit_denominator(1000)
        self._stream: Any = self._container.add_stream(codec, rate=self._rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, pixels
        self._stream.codec_context.thread_count = 1
        if depth:
            keys = f"keyint={KEY_FRAME_EVERY}:min-keyint={KEY_FRAME_EVERY}"
            lossless = f"lossless=1:pools=none:frame-threads=1:bframes=0:{keys}:log-level=none"
            self._stream.options = {"preset": "veryfast", "x265-params": lossless}
        else:
            self._stream.options = {"crf": "18", "g": str(KEY_FRAME_EVERY), "bf": "0", "preset": "veryfast"}

    def write(self, picture: UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W"]) -> None:
        frame = self._av.VideoFrame.from_ndarray(picture, format="gray12le" if self.depth else "rgb24")
        frame.pts = self.count
        frame.time_base = 1 / self._rate
        self.count += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


def _av() -> ModuleType:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ImportError("videos are read and written by PyAV: pip install 'gemvlm[curate]'") from error
