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

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.depth import LARGEST_MILLIMETRES, MILLIMETRES, read_png16
from gemvlm.sample import Frame

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
        """z-depth moved into a colour image of `width` x `height`; where several surfaces land, the nearest counts.

        A depth pixel lands where its centre projects. Pixels that stay empty take what the edges and corners of depth
        pixels reach, so that sampling leaves no holes; places that only the colour camera sees stay invalid.
        """
        camera = self.depth_camera(depth.values.shape[1], depth.values.shape[0])
        rows, columns = np.nonzero(depth.valid)
        centres = np.stack([columns, rows], axis=-1) + 0.5
        z = depth.values[rows, columns].astype(np.float64)
        points = camera.unproject(centres, z) - np.array([*self.shift_m, 0.0])
        landed = self.color_camera(width, height).project(points)

        reach = 0.5 * self.color_focal / self.depth_focal
        grid = [landed + reach * np.array((x, y)) for x in (-1, 0, 1) for y in (-1, 0, 1)]
        nearest = _splat(landed, z, width, height)
        around = _splat(np.concatenate(grid), np.tile(z, len(grid)), width, height)
        filled = np.where(np.isfinite(nearest), nearest, around)
        valid = np.isfinite(filled)
        return replace(depth, values=np.where(valid, filled, 0).astype(np.float32), valid=valid)


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
        image = _read_image(files.image)
        height, width = image.shape[:2]
        depth = self._depth(files, width, height)
        view = self._view(files, width, height)
        if self.size is not None and self.size != (height, width):
            height, width = self.size
            image = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
            depth = depth and depth.resized(width, height)
            view = view and replace(view, camera=view.camera.resized(width, height))
        return Frame(image, depth, view)

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
        k = _read_matrix(intrinsics, (3, 3))
        return View(Camera(width, height, *(float(x) for x in (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5))), pose)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.stem.endswith((".depth", "_depth"))


def _frame_files(image: Path) -> RgbdFrameFiles:
    name = image.stem.removesuffix(".color")
    depths = [image.with_name(name + ending) for ending in (".depth.png", "_depth.png")]
    pose = image.with_name(f"{name}.pose.txt")
    depth = next((path for path in depths if path.is_file()), None)
    return RgbdFrameFiles(name, image, depth, pose if pose.is_file() else None)


def _read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """RGB, turned the way up that the camera noted."""
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable picture ({error}); write the file again or remove it") from error


def _read_depth(path: Path) -> DepthMap:
    if path.with_suffix(".json").is_file():
        return DepthMap.from_file(path)
    counts = read_png16(path)
    valid = (counts > 0) & (counts < LARGEST_MILLIMETRES)
    return DepthMap((counts / MILLIMETRES).astype(np.float32), valid, "metric_z", "m", path.name)


def _read_pose(path: Path) -> Float[np.ndarray, "4 4"]:
    """The nearest rigid transform: text files round rotations."""
    pose = _read_matrix(path, (4, 4))
    left, _, right = np.linalg.svd(pose[:3, :3])
    error = float(np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max())
    if error > LEAST_ORTHONORMAL or np.linalg.det(left @ right) < 0:
        raise ValueError(f"{path}: not a camera-to-world transform: its rotation is off by {error:.3f} or mirrors")
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = left @ right, pose[:3, 3]
    return rigid


def _read_matrix(path: Path, shape: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
    try:
        matrix = np.loadtxt(path)
    except ValueError as error:
        raise ValueError(f"{path}: not a table of numbers: {error}") from error
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise ValueError(f"{path}: expected {shape[0]} x {shape[1]} finite numbers, found {matrix.shape}")
    return matrix


def _splat(
    pixels: Float[np.ndarray, "N 2"], z: Float[np.ndarray, "N"], width: int, height: int
) -> Float[np.ndarray, "H W"]:
    """The smallest z that falls into each pixel, infinity where none does."""
    columns, rows = np.floor(pixels).astype(np.int64).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, rows[inside] * width + columns[inside], z[inside])
    return nearest.reshape(height, width)
