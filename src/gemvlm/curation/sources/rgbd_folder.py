"""Frames from a folder of pictures with or without depth, camera and pose.

For each NAME the folder holds `NAME.color.jpg|png` (or plainly `NAME.jpg|png`) and, if known,

    NAME.depth.png, NAME_depth.png   16-bit counts: millimetres along the optical axis, 0 and 65535 mean no value;
                                     a JSON beside it (see `depth_map`) may say otherwise
    NAME.pose.txt                    4 x 4 camera-to-world in metres, OpenCV axes, of the camera that measured the depth
    camera-intrinsics.txt            3 x 3 for the whole folder, pixel centres on integers

This is the layout of 7-Scenes (Shotton et al., CVPR 2013). Its depth and colour come through two lenses: a
`Registration` brings the depth into the colour image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from gemvlm.camera import Camera, View
from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.asked_frames import Asking, Shot, asked_frames, frame_parts, part_range
from gemvlm.curation.sources.folder import read_frame
from gemvlm.curation.sources.registration import splatted
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.depth import LARGEST_MILLIMETRES, MILLIMETRES, read_png16
from gemvlm.sample import Frame, Provenance, Sample

ASKING = Asking()
LARGEST_TABLE = 1 << 16
"""Bytes of a text file that holds one matrix."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LEAST_ORTHONORMAL = 0.02
"""Largest entry of R Rᵀ - 1 that is taken for rounding of a rotation rather than for a wrong file."""


@dataclass(frozen=True)
class Registration:
    """Two pinhole cameras that differ by a shift. Focal lengths and (x, y) centres in pixels, centres on integers.

    A point (X, Y, Z) of the depth camera is (X - shift_m[0], Y - shift_m[1], Z) in the colour camera.
    """

    depth_focal: float
    depth_center: tuple[float, float]
    shift_m: tuple[float, float]
    color_focal: float
    color_center: tuple[float, float]

    def depth_camera(self, width: int, height: int) -> Camera:
        x, y = self.depth_center
        return Camera(width, height, self.depth_focal, self.depth_focal, x + 0.5, y + 0.5)

    def color_camera(self, width: int, height: int) -> Camera:
        x, y = self.color_center
        return Camera(width, height, self.color_focal, self.color_focal, x + 0.5, y + 0.5)

    @property
    def color_to_depth(self) -> Float[np.ndarray, "4 4"]:
        transform = np.eye(4)
        transform[:2, 3] = self.shift_m
        return transform

    def register(self, depth: DepthMap, width: int, height: int) -> DepthMap:
        """z-depth moved into a colour image of `width` x `height`; see `registration.splatted`."""
        source = self.depth_camera(depth.values.shape[1], depth.values.shape[0])
        return splatted(depth, source, self.color_camera(width, height), np.linalg.inv(self.color_to_depth))


KINECT_7SCENES = Registration(585.0, (320.0, 240.0), (0.034, -0.004), 526.2, (323.0, 237.0))
"""7-Scenes' Kinect at 640 x 480, fitted by aligning depth jumps with colour edges on 20 frames, checked on 20 more."""


@dataclass(frozen=True)
class RgbdFrameFiles:
    """The files of one frame; None where there is none."""

    name: str
    image: Path
    depth: Path | None
    pose: Path | None


@dataclass(frozen=True)
class RgbdFolder:
    """A sequence of frames, sorted by name and read when asked for. `size` (height, width) resizes all parts together.

    A frame has depth in the geometry of its image, and a view where the folder has intrinsics or a registration is
    given; a frame without a pose stands at the origin. ValueError names the file that is unreadable or does not fit.
    """

    path: Path
    registration: Registration | None = None
    size: tuple[int, int] | None = None

    @cached_property
    def files(self) -> tuple[RgbdFrameFiles, ...]:
        if not self.path.is_dir():
            raise ValueError(f"{self.path}: no such folder; check the name")
        images = [path for path in sorted(self.path.iterdir()) if _is_image(path)]
        if not images:
            raise ValueError(f"{self.path}: no picture found; expected NAME.color.jpg, NAME.jpg or NAME.png")
        frames = [_frame_files(path) for path in images]
        names = [frame.name for frame in frames]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{self.path}: {len(twice)} names have two pictures each ({twice[0]}, ...); keep one")
        return tuple(sorted(frames, key=lambda frame: frame.name))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(frame.name for frame in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Frame:
        files = self.files[index]
        frame = read_frame(files.image, upright=True)
        height, width = frame.image.shape[:2]
        depth = self._depth(files, width, height)
        view = self._view(files, width, height)
        if self.size is not None and self.size != (height, width):
            height, width = self.size
            image = np.array(Image.fromarray(frame.image).resize((width, height), Image.Resampling.BILINEAR))
            depth = depth and depth.resized(width, height)
            view = view and replace(view, camera=view.camera.resized(width, height))
            return Frame(image, depth, view)
        return replace(frame, depth=depth, view=view)

    def _depth(self, files: RgbdFrameFiles, width: int, height: int) -> DepthMap | None:
        if files.depth is None:
            return None
        depth = _read_depth(files.depth)
        if self.registration is not None:
            return self.registration.register(depth, width, height)
        if depth.values.shape != (height, width):
            raise ValueError(
                f"{files.depth}: depth is {depth.values.shape} but {files.image.name} is {(height, width)} "
                "(height, width); give a registration, or resample the depth to the image"
            )
        return depth

    def _view(self, files: RgbdFrameFiles, width: int, height: int) -> View | None:
        pose = np.eye(4) if files.pose is None else _read_pose(files.pose)
        if self.registration is not None:
            return View(self.registration.color_camera(width, height), pose @ self.registration.color_to_depth)
        intrinsics = self.path / "camera-intrinsics.txt"
        if not intrinsics.is_file():
            return None
        k = read_matrix(intrinsics, (3, 3))
        return View(Camera(width, height, *(float(x) for x in (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5))), pose)


@dataclass(frozen=True)
class RgbdFolders:
    """Samples from every folder of such frames at or below `path`, a folder being a scene."""

    path: Path | str
    registration: Registration | None = None
    licence: str = "unknown"
    asking: Asking = ASKING

    @property
    def name(self) -> str:
        return "rgbd-folder"

    def parts(self) -> Sequence[str]:
        root = Path(self.path)
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder; check the name")
        inner = sorted(folder for folder in root.rglob("*") if folder.is_dir())
        scenes = [folder for folder in (root, *inner) if any(map(_is_image, folder.iterdir()))]
        if not scenes:
            raise ValueError(f"{root}: no picture found; expected NAME.color.jpg, NAME.jpg or NAME.png")
        counts = [(scene.relative_to(root).as_posix(), len(RgbdFolder(scene))) for scene in scenes]
        return [part for scene, count in counts for part in frame_parts(scene, count)]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        scene, start, stop = part_range(part)
        root = Path(self.path)
        folder = RgbdFolder(root / scene, self.registration)
        shots = [
            Shot(files.name, files.image.relative_to(root).as_posix(), partial(folder.__getitem__, start + offset))
            for offset, files in enumerate(folder.files[start:stop])
        ]
        known = f"{self.name}/{root.name}" if scene == "." else f"{self.name}/{root.name}/{scene}"
        yield from asked_frames(self.name, known, shots, self.asking, Provenance(licence=self.licence))


@dataclass(frozen=True)
class SevenScenes(RgbdFolders):
    """7-Scenes: folders SCENE/seq-NN. Offered by Microsoft Research for non-commercial research only."""

    registration: Registration | None = KINECT_7SCENES
    licence: str = "LicenseRef-7-Scenes-non-commercial"

    @property
    def name(self) -> str:
        return "7-scenes"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.stem.endswith((".depth", "_depth"))


def _frame_files(image: Path) -> RgbdFrameFiles:
    name = image.stem.removesuffix(".color")
    depths = [image.with_name(name + ending) for ending in (".depth.png", "_depth.png")]
    pose = image.with_name(f"{name}.pose.txt")
    depth = next((path for path in depths if path.is_file()), None)
    return RgbdFrameFiles(name, image, depth, pose if pose.is_file() else None)


def _read_depth(path: Path) -> DepthMap:
    if path.with_suffix(".json").is_file():
        return DepthMap.from_file(path)
    counts = read_png16(path)
    valid = (counts > 0) & (counts < LARGEST_MILLIMETRES)
    return DepthMap((counts / MILLIMETRES).astype(np.float32), valid, "metric_z", "m", path.name)


def _read_pose(path: Path) -> Float[np.ndarray, "4 4"]:
    return rigid(read_matrix(path, (4, 4)), path)


def rigid(pose: Float[np.ndarray, "4 4"], path: Path) -> Float[np.ndarray, "4 4"]:
    """The nearest rigid transform: text files round rotations. ValueError names `path` if it is none."""
    left, _, right = np.linalg.svd(pose[:3, :3])
    error = float(np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max())
    if error > LEAST_ORTHONORMAL or np.linalg.det(left @ right) < 0:
        raise ValueError(f"{path}: not a camera-to-world transform: its rotation is off by {error:.3f} or mirrors")
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = left @ right, pose[:3, 3]
    return transform


def read_matrix(path: Path, shape: tuple[int, int], finite: bool = True) -> Float[np.ndarray, "rows columns"]:
    """A table of numbers of the given shape. ValueError names the file that holds something else."""
    try:
        if path.stat().st_size > LARGEST_TABLE:
            raise ValueError(f"{path.stat().st_size} bytes")
        lines = [line.split() for line in path.read_text().splitlines()]
        matrix = np.array([[float(word) for word in words] for words in lines if words])
    except ValueError as error:
        raise ValueError(f"{path}: not a table of numbers: {error}") from error
    if matrix.shape != shape or (finite and not np.isfinite(matrix).all()):
        raise ValueError(f"{path}: expected {shape[0]} x {shape[1]} finite numbers, found {matrix.shape}")
    return matrix
