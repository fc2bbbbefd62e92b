"""An episode as people watch it: all cameras side by side, a line of words, a frame that turns green when it is done.

MP4 by PyAV (extra `curate`); without it a GIF of fewer pictures. The file appears when the episode has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

SIDE = 256
"""Height of a camera's picture, in pixels."""
MARGIN, STRIP = 4, 24
FASTEST_HZ = 30.0
HOLD_S = 1.0
"""How long the last picture stays, with the outcome."""
MOST_GIF = 120
GREY, GREEN, RED = (110, 110, 110), (20, 150, 110), (230, 57, 70)

Picture = UInt8[np.ndarray, "H W 3"]
Framed = UInt8[np.ndarray, "h w 3"]


def video_suffix() -> str:
    """ ".mp4" where PyAV is installed, else ".gif"."""
    try:
        import av  # noqa: F401
    except ImportError:
        return ".gif"
    return ".mp4"


class VideoFile:
    """Grows step by step; `path` ends in what `video_suffix` says. Steps that come too fast for eyes are left out."""

    def __init__(self, path: Path, title: str, steps: int, rate_hz: float) -> None:
        self.path, self._title, self._steps = path, title, steps
        self._every = max(1, round(rate_hz / FASTEST_HZ))
        self._rate = rate_hz / self._every
        self._last: Mapping[str, Picture] = {}
        self._count = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = path.with_name(f".{path.name}.part{path.suffix}")
        self._sink: _Mp4 | _Gif | None = None

    def add(self, images: Mapping[str, Picture], step: int, done: bool) -> None:
        """What the robot saw after `step` actions, and whether the task was done then."""
        self._last, self._count = images, step
        if step % self._every == 0:
            self._put(f"{self._title} · step {step} of {self._steps}", GREEN if done else GREY)

    def close(self, success: bool, first_success: int | None) -> None:
        """Holds the last picture with the outcome, and puts the file in its place."""
        told = f"done after {self._count} steps" if success else f"not done after {self._count} steps"
        if not success and first_success is not None:
            told += f", but after {first_success}"
        for _ in range(max(1, round(HOLD_S * self._rate))):
            self._put(f"{self._title} · {told}", GREEN if success else RED)
        if self._sink is not None:
            self._sink.close()
            self._partial.replace(self.path)

    def _put(self, words: str, colour: tuple[int, int, int]) -> None:
        frame = compose(list(self._last.values()), words, colour)
        if self._sink is None:
            kind = _Mp4 if self.path.suffix == ".mp4" else _Gif
            self._sink = kind(self._partial, frame.shape[0], frame.shape[1], self._rate)
        self._sink.write(frame)


def compose(pictures: list[Picture], words: str, colour: tuple[int, int, int]) -> Framed:
    """Pictures of one height beside each other in a coloured frame, with words below; even sides, as H.264 wants."""
    shown = [
        Image.fromarray(picture).resize((max(1, round(picture.shape[1] * SIDE / picture.shape[0])), SIDE))
        for picture in pictures
    ]
    width = sum(image.width for image in shown) + MARGIN * (len(shown) + 1)
    canvas = Image.new("RGB", (width + width % 2, SIDE + 2 * MARGIN + STRIP), colour)
    left = MARGIN
    for image in shown:
        canvas.paste(image, (left, MARGIN))
        left += image.width + MARGIN
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN + 4, SIDE + 2 * MARGIN + 2), words, fill="white", font=ImageFont.load_default(14))
    return np.asarray(canvas)


class _Mp4:
    def __init__(self, path: Path, height: int, width: int, rate_hz: float) -> None:
        from gemvlm.data.episodes.video import VideoWriter

        self._writer = VideoWriter(path, height, width, rate_hz)

    def write(self, frame: Framed) -> None:
        self._writer.write(frame)

    def close(self) -> None:
        self._writer.close()


class _Gif:
    """Keeps at most so many pictures: when there are more, every other one goes and the rest stay twice as long."""

    def __init__(self, path: Path, height: int, width: int, rate_hz: float) -> None:
        self._path, self._each_ms, self._every, self._count = path, 1000 / rate_hz, 1, 0
        self._kept: list[Image.Image] = []

    def write(self, frame: Framed) -> None:
        if self._count % self._every == 0:
            self._kept.append(Image.fromarray(frame).quantize(128))
        self._count += 1
        if len(self._kept) > MOST_GIF:
            self._kept, self._every = self._kept[::2], self._every * 2

    def close(self) -> None:
        lasting = max(20, round(self._each_ms * self._every))
        self._kept[0].save(self._path, save_all=True, append_images=self._kept[1:], duration=lasting, loop=0)
