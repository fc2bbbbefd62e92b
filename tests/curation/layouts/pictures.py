"""Pictures, depth and videos for tiny data sets, all from seeds."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A smooth picture (height, width, 3) that differs from seed to seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


def picture(path: Path, seed: int, size: tuple[int, int] = (48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, size)).save(path)


def encoded(seed: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, form)
    return buffer.getvalue()


def depth(path: Path, seed: int, size: tuple[int, int] = (48, 64)) -> None:
    """16-bit counts with a hole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = (1000 + pixels(seed, size)[..., 0].astype(np.uint16) * 20).astype(np.uint16)
    counts[:3, :3] = 0
    Image.fromarray(counts).save(path)


def video(path: Path, seed: int, frames: int = 12, fps: int = 6) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(pixels(seed), 3 * index, axis=1)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
