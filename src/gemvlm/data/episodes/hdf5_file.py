"""One HDF5 file of an episode, opened and checked before anything of it is believed: sizes, links, kinds of numbers.

`hdf5` tells the layout and reads episodes.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gemvlm.data.episodes.video import LARGEST_SIDE

LARGEST_VECTOR = 4096
LARGEST_CHUNK_BYTES = 256 << 20
LARGEST_TABLE_BYTES = 2 << 30
LARGEST_JSON = 16 << 20
OPEN_FILES = 8


class Named:
    """Whatever a damaged file raises becomes a ValueError with its name: the one place of this source."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        unnamed = isinstance(error, ValueError) and str(self.file.parent) not in str(error)
        kinds = (OSError, KeyError, TypeError, RuntimeError, OverflowError, RecursionError, MemoryError, AttributeError)
        if unnamed or isinstance(error, kinds):
            raise ValueError(f"{self.file}: not a readable episode ({error}); fetch or convert it again") from error


def open_file(file: Path) -> Any:
    """An open file of this process: an HDF5 handle must not cross a fork."""
    return _opened(file, file.stat().st_mtime_ns, os.getpid())


@lru_cache(maxsize=OPEN_FILES)
def _opened(file: Path, changed: int, process: int) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files are read by h5py: pip install 'gemvlm[robots]'") from error
    return h5py.File(file, "r")


def table(content: Any, name: str, file: Path, dimensions: int) -> Any:
    """A table of floats, checked before anything of it is read."""
    own = checked(content, name, file)
    if own.ndim != dimensions or own.dtype.kind != "f" or not 0 < max(own.shape[1:]) <= LARGEST_VECTOR:
        raise ValueError(f"{file}: {name} is {own.shape} of {own.dtype}; {dimensions} axes of float are needed")
    if float(np.prod(own.shape, dtype=np.float64)) * own.dtype.itemsize > LARGEST_TABLE_BYTES:
        raise ValueError(f"{file}: {name} of {own.shape} is larger than {LARGEST_TABLE_BYTES} bytes")
    return own


def pictures_of(content: Any, name: str, file: Path) -> Any:
    own = checked(content, name, file)
    if own.ndim == 4 and own.dtype == np.uint8 and own.shape[3] == 3 and 0 < max(own.shape[1:3]) <= LARGEST_SIDE:
        return own
    if own.ndim == 1 and own.dtype.kind in "SO" and len(own):
        return own
    raise ValueError(f"{file}: {name} is {own.shape} of {own.dtype}; (N, H, W, 3) of uint8, or N encoded pictures")


def checked(content: Any, name: str, file: Path) -> Any:
    """A data set that lies in this very file, and whose pieces are of a bearable size."""
    import h5py

    walked = content
    for part in name.split("/"):
        if not isinstance(walked, h5py.Group) or part not in walked:
            raise ValueError(f"{file}: no {name}; there are {sorted(walked) if hasattr(walked, 'keys') else []}")
        if not isinstance(walked.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{file}: {name} is a link; an episode must lie in its own file")
        walked = walked[part]
    if not isinstance(walked, h5py.Dataset) or walked.external or walked.is_virtual:
        raise ValueError(f"{file}: {name} is no data set of this file")
    piece = float(np.prod(walked.chunks or (1,), dtype=np.float64)) * walked.dtype.itemsize
    if piece > LARGEST_CHUNK_BYTES:
        raise ValueError(f"{file}: {name} is stored in pieces of {piece:.3g} bytes; more than {LARGEST_CHUNK_BYTES}")
    return walked


def cameras(content: Any, file: Path) -> list[str]:
    images = content.get("observations/images")
    names = sorted(images) if images is not None and hasattr(images, "keys") else []
    if not names:
        raise ValueError(f"{file}: no camera under observations/images; convert the episode with its pictures")
    return names


def decoded(data: Any, file: Path, colour: bool = True) -> UInt8[np.ndarray, "H W 3"] | np.ndarray:
    content = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
    try:
        image = Image.open(io.BytesIO(content))
        if max(image.size) > LARGEST_SIDE:
            raise ValueError(f"{image.size} pixels are too many")
        return np.array(image.convert("RGB") if colour else image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: not a readable picture ({error}); convert the episode again") from error


def wordings(file: Path) -> tuple[str, ...]:
    """All ways in which this very episode was asked for."""
    path = file.parent / "instructions.json"
    if not path.is_file() or path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path}: missing or larger than {LARGEST_JSON} bytes; it holds the episodes' instructions")
    try:
        stated = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if isinstance(stated, Mapping):
        if file.stem not in stated:
            raise ValueError(f"{path}: nothing about {file.stem!r}; it names {len(stated)} other episodes")
        stated = stated[file.stem]
    said = [stated] if isinstance(stated, str) else stated
    if not isinstance(said, list) or not said or not all(isinstance(one, str) and one.strip() for one in said):
        raise ValueError(f"{path}: the instructions of {file.stem!r} are {said!r:.80}; give texts")
    return tuple(dict.fromkeys(one.strip() for one in said))
