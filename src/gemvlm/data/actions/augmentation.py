"""Pictures changed at random in training: light and colour, noise, blur, compression, and small shifts.

The sizes of `Augmentation.published()` are those of the released GEM-VLA code (zhaorw02/GEM, commit 5500948,
`GEM-VLA/train/dataset.py` and `image_corrupt.py`): half of the pictures get a jitter, a corruption or both; of its
kinds of noise and blur the Gaussian ones are here. Every draw comes from a key that names the sample, the epoch and the
camera: equal in every process, different in every epoch.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image, ImageFilter

from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Augmentation:
    """`share` of the pictures are changed. `shift` is a fraction of each side, and moves depth along with colour.

    Brightness, contrast and saturation are the largest relative changes, `hue` a fraction of the circle. Of the
    corrupted pictures all get noise with a deviation up to `noise` (of 255), and a share `blur` of them a blur, a share
    `compression` a JPEG of quality 50 to 100.
    """

    share: float = 1.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    compression: float = 0.0

    @classmethod
    def published(cls) -> Augmentation:
        return cls(0.5, 0.0, 0.3, 0.4, 0.5, 0.03, noise=0.02, blur=0.168, compression=0.168)

    def __call__(self, frame: Frame, key: int) -> Frame:
        """The frame, changed as `key` says. Its file's bytes and, if it is shifted, its view no longer belong to it."""
        random = np.random.Generator(np.random.PCG64(key))
        image, depth, view = frame.image, frame.depth, frame.view
        if self.shift:
            height, width = image.shape[:2]
            if depth is not None and depth.kind == "ray_distance" and view is not None:
                depth = depth.to_z(view.camera)
            down, right = (round(float(random.uniform(-self.shift, self.shift)) * side) for side in (height, width))
            image, view = _shifted(image, down, right), None
            depth = None if depth is None else _shifted_depth(depth, down, right)
        if random.random() < self.share:
            jitter, corrupt = ((True, False), (False, True), (True, True))[random.integers(3)]
            if jitter:
                image = self._jittered(image, random)
            if corrupt:
                image = self._corrupted(image, random)
        return replace(frame, image=image, depth=depth, view=view, encoded=None)

    def _jittered(self, image: UInt8[np.ndarray, "H W 3"], random: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        values = image.astype(np.float32)
        sizes = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (1 + random.uniform(-size, size) for size in sizes)
        values *= brightness
        mean = float((values @ _LUMINANCE).mean())
        values = (values - mean) * contrast + mean
        grey = (values @ _LUMINANCE)[..., None]
        values = (values - grey) * saturation + grey
        return _as_bytes(values @ _hue_turn(float(random.uniform(-self.hue, self.hue))).T)

    def _corrupted(self, image: UInt8[np.ndarray, "H W 3"], random: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        if self.noise:
            channels = 3 if random.random() < 0.5 else 1
            spread = random.uniform(0, self.noise) * 255
            noise = random.normal(size=(*image.shape[:2], channels)).astype(np.float32)
            image = _as_bytes(image + np.float32(spread) * noise)
        if random.random() < self.blur:
            blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(float(random.uniform(0, 1.5))))
            image = np.asarray(blurred)
        if random.random() < self.compression:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=int(random.integers(50, 101)))
            image = np.asarray(Image.open(file).convert("RGB"))
        return image


def _as_bytes(values: Float32[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _hue_turn(fraction: float) -> Float32[np.ndarray, "3 3"]:
    """Turns colours about the grey axis by a fraction of the circle (Rodrigues' formula); grey stays grey."""
    angle = 2 * np.pi * fraction
    grey = np.full((3, 3), 1 / 3)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * grey + np.sin(angle) * across
    return turn.astype(np.float32)


def _shifted(values: Shaped[np.ndarray, "H W *channels"], down: int, right: int) -> Shaped[np.ndarray, "H W *channels"]:
    """Moved by whole pixels; the border's pixels fill what comes in."""
    height, width = values.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return values.take(rows, axis=0).take(columns, axis=1)


def _shifted_depth(depth: DepthMap, down: int, right: int) -> DepthMap:
    """Moved like its picture; what comes in has no depth."""
    height, width = depth.values.shape
    rows, columns = np.arange(height) - down, np.arange(width) - right
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    return replace(depth, values=_shifted(depth.values, down, right), valid=_shifted(depth.valid, down, right) & inside)
