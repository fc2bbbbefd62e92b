"""Episodes in the HDF5 files of the released GEM-VLA code (extra `robots`).

Stated in zhaorw02/GEM, `GEM-VLA/train/dataset.py` and `GEM-VLA/data/generate_hdf5.py` (commit 5500948): one file for
each episode, `episode_K.hdf5`, with

    action                        (N, A) float, where to be at the next row; or
    action_chunk                  (N, H, A) float, which then overrides it
    observations/state            (N, S) float
    observations/images/CAMERA    (N, H, W, 3) uint8, or N encoded pictures (bytes)
    observations/depth_images/CAMERA, optional, like images

and `instructions.json` in its folder: a list of wordings, or here also an object from a file's stem to its own. The
released converter encodes nothing: it writes RGB arrays, which it has moved by the camera's latency, and depth as uint8
colour pictures that Depth Anything 3 painted (whether with the Spectral map, we have not checked). Pictures that others
encoded are decoded there by OpenCV and taken for RGB, which is right for what OpenCV encoded from RGB arrays. The files
say neither their rate nor the order of colours of encoded pictures nor what their depth means. All three have to be
said, unless a file does say the first two (attributes `fps` and `colour_order`), against which they are then checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from jaxtyping import Float32

from gemvlm.data.episodes.episode import CameraInfo, Episode
from gemvlm.data.episodes.hdf5_file import Named, cameras, checked, decoded, open_file, pictures_of, table, wordings
from gemvlm.data.episodes.latency import NO_LATENCY, Latency
from gemvlm.data.episodes.lerobot_meta import LONGEST_EPISODE
from gemvlm.depth_map import DepthMap, Encoding, decode
from gemvlm.sample import Frame

ColourOrder = Literal["rgb", "bgr"]
DepthAs = Literal["none", "m", "mm", "spectral"]
CONFIDENT = 0.5
"""A painted pixel less like any colour of the map than this has no depth."""


@dataclass(frozen=True)
class Hdf5Folder:
    """The episodes of a folder and its sub-folders, by folder and number.

    `encoded_order` is the order of colours that an ordinary decoder gives for encoded pictures: "bgr" if they were
    written by OpenCV from RGB arrays, "rgb" if they look right in any viewer. `raw_order` is that of stored arrays.
    `fps` and `encoded_order` may be None where the files say them, the second also where no picture is encoded.
    `depth` says what depth pictures hold: metres, millimetres, or colours of the Spectral map, which become disparity
    up to scale. ValueError for a folder without such files, and from an episode for what is damaged in it.
    """

    path: Path
    fps: float | None = None
    encoded_order: ColourOrder | None = None
    raw_order: ColourOrder = "rgb"
    depth: DepthAs = "none"
    latency: Latency = NO_LATENCY
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    robot: str = "unknown"
    licence: str = "unknown"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> Episode:
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.path}: episode {position} of {len(self)}")
        return self._episode(self.files[position])

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every HDF5 file, in an order that is the same everywhere."""
        found = [file for file in self.path.rglob("*.hdf5") if file.is_file()]
        if not found:
            raise ValueError(f"{self.path}: no .hdf5 files in it; is this the folder of the converted episodes?")
        return tuple(sorted(found, key=lambda file: (str(file.parent), _number(file), file.name)))

    def _episode(self, file: Path) -> Episode:
        with Named(file):
            content = open_file(file)
            fps = self._rate(content, file)
            state = table(content, "observations/state", file, 2)
            chunked = "action_chunk" in content
            action = table(content, "action_chunk" if chunked else "action", file, 3 if chunked else 2)
            pictures = {
                name: pictures_of(content, f"observations/images/{name}", file) for name in cameras(content, file)
            }
            order = self._order(content, pictures, file)
            depths = self._depths(content, file)
            counts = {"state": len(state), "action": len(action)}
            if len(state) != len(action) or not 0 < len(state) <= LONGEST_EPISODE:
                raise ValueError(f"{file}: rows differ or are none: {counts}; convert the episode again")
            if chunked and (self.latency.arm or self.latency.gripper):
                raise ValueError(f"{file}: action_chunk can't be moved by a latency; convert again, or set it to 0")
            length = self.latency.length(len(state), min(len(own) for own in (*pictures.values(), *depths.values())))
            if not length:
                raise ValueError(f"{file}: {counts} rows leave nothing after {self.latency}")
            told = wordings(file)
            return Episode(
                id=str(file.relative_to(self.path).with_suffix("")),
                instruction=told[0],
                wordings=told if len(told) > 1 else (),
                length=length,
                fps=fps,
                cameras={
                    name: CameraInfo(*self._size(own, file), has_depth=name in depths) for name, own in pictures.items()
                },
                data=_Reader(self, file, len(state), fps, order),
                state_names=self.state_names or _numbered("state", state.shape[1]),
                action_names=self.action_names or _numbered("action", action.shape[-1]),
                robot=self.robot,
                licence=self.licence,
                chunk_length=action.shape[1] if chunked else 0,
            )

    def _depths(self, content: Any, file: Path) -> dict[str, Any]:
        """The data sets of depth by camera, if they are wanted."""
        keys = {name: f"observations/depth_images/{name}" for name in cameras(content, file)}
        wanted = self.depth != "none"
        return {name: checked(content, key, file) for name, key in keys.items() if wanted and key in content}

    def _rate(self, content: Any, file: Path) -> float:
        """Frames a second, as said of the folder or by the file; both must agree."""
        own = content.attrs.get("fps")
        if own is not None and self.fps is not None and abs(float(own) - self.fps) > 1e-6:
            raise ValueError(f"{file}: says {float(own):g} frames per second, the folder was opened at {self.fps:g}")
        if own is None and self.fps is None:
            raise ValueError(
                f'{file}: nobody says how many frames it has a second; write episodes.json into {self.path}: {{"fps": '
                "30, ...}"
            )
        return float(own if self.fps is None else self.fps)

    def _order(self, content: Any, pictures: Mapping[str, Any], file: Path) -> ColourOrder:
        """The order of colours of encoded pictures, as said of the folder or by the file; both must agree."""
        own = content.attrs.get("colour_order")
        own = own.decode() if isinstance(own, bytes) else own
        wanted = get_args(ColourOrder) if self.encoded_order is None else (self.encoded_order,)
        if own is not None and own not in wanted:
            raise ValueError(f"{file}: says colour_order {own!r}, the folder was opened as {' or '.join(wanted)!r}")
        encoded = [stored for stored in pictures.values() if stored.ndim == 1]
        if encoded and own is None and self.encoded_order is None:
            seen = suspected_order([Frame(decoded(encoded[0][0], file))])
            raise ValueError(
                f"{file}: nobody says the order of colours in its encoded pictures; write episodes.json into "
                f'{self.path}: {{"encoded_order": "bgr", ...}} if OpenCV encoded RGB arrays, or "rgb" if they look '
                f"right in any viewer; the first looks like {seen or 'either'}"
            )
        return cast(ColourOrder, own or self.encoded_order or "rgb")

    def _size(self, pictures: Any, file: Path) -> tuple[int, int]:
        height, width = pictures.shape[1:3] if pictures.ndim == 4 else decoded(pictures[0], file).shape[:2]
        return int(height), int(width)


def suspected_order(frames: Sequence[Frame]) -> ColourOrder | None:
    """What the colours look like: rooms, wood, skin and warm light have more red than blue. None if it is close.

    A hint for people who have to say `encoded_order`, never a decision.
    """
    red, _, blue = np.mean([frame.image.reshape(-1, 3).mean(axis=0) for frame in frames], axis=0)
    if abs(red - blue) < 4:
        return None
    return "rgb" if red > blue else "bgr"


@dataclass(frozen=True)
class _Reader:
    """Reads one file of a folder; `rows` are those recorded, before latency took some. `order`: of encoded pictures."""

    folder: Hdf5Folder
    file: Path
    rows: int
    fps: float
    order: ColourOrder

    def signal(self, name: str, start: int, stop: int) -> Float32[np.ndarray, "T D"]:
        with Named(self.file):
            content, latency = open_file(self.file), self.folder.latency
            if name == "state":
                values = np.asarray(content["observations/state"][start:stop], np.float32)
            elif "action_chunk" in content:
                values = np.asarray(content["action_chunk"][start:stop, 0], np.float32)
            else:
                last = min(self.rows, stop + max(latency.arm, latency.gripper))
                values = latency.actions(np.asarray(content["action"][start:last], np.float32), 0, stop - start)
        return self._finite(values, name, start)

    def chunk(self, index: int) -> Float32[np.ndarray, "H A"]:
        with Named(self.file):
            values = np.asarray(open_file(self.file)["action_chunk"][index], np.float32)
        return self._finite(values, "action_chunk", index)

    def frames(self, camera: str, indices: Sequence[int]) -> tuple[Frame, ...]:
        with Named(self.file):
            content = open_file(self.file)
            pictures = content[f"observations/images/{camera}"]
            key = f"observations/depth_images/{camera}"
            depths = content[key] if self.folder.depth != "none" and key in content else None
            return tuple(self._frame(pictures, depths, index) for index in indices)

    def _frame(self, pictures: Any, depths: Any, index: int) -> Frame:
        row = self.folder.latency.picture(index)
        raw = pictures.ndim == 4
        image = pictures[row] if raw else decoded(pictures[row], self.file)
        order = self.folder.raw_order if raw else self.order
        image = np.ascontiguousarray(image if order == "rgb" else image[..., ::-1])
        depth = None if depths is None else self._depth(depths, row)
        return Frame(image, depth, time_s=index / self.fps)

    def _depth(self, depths: Any, row: int) -> DepthMap:
        values = depths[row] if depths.ndim >= 3 else decoded(depths[row], self.file, colour=False)
        source = f"{self.file.name}, row {row}"
        if self.folder.depth == "spectral":
            if values.ndim != 3 or values.dtype != np.uint8:
                raise ValueError(f"{source}: depth of shape {values.shape} and {values.dtype} is no colour picture")
            picture = values.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
            depth, confidence = decode(picture, Encoding("spectral"), source=source)
            return DepthMap(depth.values, depth.valid & (confidence >= CONFIDENT), depth.kind, depth.unit, source)
        if values.ndim == 3 and values.shape[2] == 1:
            values = values[..., 0]
        if values.ndim != 2 or values.dtype == np.uint8:
            raise ValueError(
                f"{source}: depth of shape {values.shape} and {values.dtype} holds no {self.folder.depth!r}; colours "
                "of depth are read with depth='spectral'"
            )
        metres = values.astype(np.float32) / (1000 if self.folder.depth == "mm" else 1)
        valid = np.isfinite(metres) & (metres > 0)
        return DepthMap(np.where(valid, metres, 0).astype(np.float32), valid, "metric_z", "m", source)

    def _finite(self, values: np.ndarray, name: str, start: int) -> np.ndarray:
        if not np.isfinite(values).all():
            row = start + int(np.argwhere(~np.isfinite(values))[0, 0])
            raise ValueError(f"{self.file}: {name} holds NaN or infinity at row {row}; repair or drop the episode")
        return values


def _number(file: Path) -> int:
    digits = re.search(r"(\d{1,12})$", file.stem)
    return int(digits[1]) if digits else -1


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{index}" for index in range(count))
