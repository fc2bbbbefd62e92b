"""What people hand over as pictures → upright RGB arrays, bounded, or an error that names the file and the remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from gemvlm.data.video import evenly, video_frames

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray
"""A file, a PIL image, or a uint8 array (height, width, 3) in RGB."""
Images = ImageLike | Sequence[ImageLike] | None
"""One image, several, or none. A video file or a folder of frames stands for its frames (see `read_video`)."""

LARGEST_PIXELS = 64 * 2**20
"""Pixels of one image; more are not decoded."""
VIDEO_FRAMES = 8
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


def read_image(image: ImageLike) -> UInt8[np.ndarray, "H W 3"]:
    """An upright RGB array. ValueError names the file, or what is wrong with the array, and the remedy."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image: array is {image.dtype} {image.shape}; give uint8 (height, width, 3) in RGB")
        _check_size(image.shape[1], image.shape[0], "image")
        return image
    if isinstance(image, Image.Image):
        return _upright_rgb(image, "image")
    path = Path(image)
    if not path.is_file():
        raise ValueError(f"{image}: no such image file; check the name")
    if not path.stat().st_size:
        raise ValueError(f"{image}: the file is empty (0 bytes); write or fetch it again")
    try:
        with Image.open(path) as opened:
            return _upright_rgb(opened, str(image))
    except UnidentifiedImageError:
        raise ValueError(f"{image}: not an image that can be read; give a PNG, JPEG or WebP file") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{image}: the image is damaged or far too large ({error}); write the file again") from None


def read_video(path: str | os.PathLike[str], frames: int = VIDEO_FRAMES) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Evenly spaced frames of a video file, or of a folder of pictures in the order of the numbers in their names.

    All of them if there are fewer. ValueError names the file; ImportError if videos can't be read here (PyAV).
    """
    path = Path(path)
    if path.is_dir():
        pictures = sorted((each for each in path.iterdir() if each.suffix.lower() in PICTURE_SUFFIXES), key=_in_order)
        if not pictures:
            raise ValueError(f"{path}: no pictures in this folder; a folder of frames holds PNG, JPEG or WebP files")
        return [read_image(pictures[index]) for index in evenly(len(pictures), frames)]
    if not path.is_file():
        raise ValueError(f"{path}: no such video; check the name")
    try:
        return video_frames(path, frames)
    except (ValueError, LookupError, OSError, ArithmeticError) as error:
        raise ValueError(f"{path}: not a video that can be read ({error}); write or fetch it again") from error


def read_images(images: Images) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Everything that a question is about, in order."""
    if images is None:
        return []
    if isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
        images = [images]
    return [picture for image in images for picture in (read_video(image) if is_video(image) else [read_image(image)])]


def is_video(image: ImageLike) -> TypeGuard[str | os.PathLike[str]]:
    """Whether this is a video file by its name, or a folder."""
    if not isinstance(image, str | os.PathLike):
        return False
    return (exists(image) and Path(image).is_dir()) or Path(image).suffix.lower() in VIDEO_SUFFIXES


def exists(name: str | os.PathLike[str]) -> bool:
    """Whether there is a file or folder of that name; words too long for a name are none, where `Path` raises."""
    try:
        return Path(name).exists()
    except OSError:
        return False


def _upright_rgb(image: Image.Image, name: str) -> UInt8[np.ndarray, "H W 3"]:
    _check_size(image.width, image.height, name)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{name}: mode {image.mode} is not a colour picture (a depth map?); give the 8-bit RGB image")
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > LARGEST_PIXELS:
        raise ValueError(f"{name}: {width} x {height} pixels are more than {LARGEST_PIXELS}; make the image smaller")


def _in_order(path: Path) -> list[tuple[int, int, str]]:
    """ "frame_10" comes after "frame_9"."""
    pieces = re.split(r"(\d+)", path.name)
    return [(1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces if piece]
