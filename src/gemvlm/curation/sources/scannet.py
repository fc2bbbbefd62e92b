"""ScanNet as its own tools export it: colour and depth of different sizes, calibrated and posed.

Stated by ScanNet/ScanNet, `SensReader/python/README.md`, `reader.py` and `SensorData.py`. Below each scene's folder:

    color/N.jpg                      8-bit RGB
    depth/N.png                      16-bit, millimetres along the optical axis ("depth shift 1000"), 0 = no value
    pose/N.txt                       4 x 4 camera-to-world in metres, OpenCV axes; all -inf where tracking was lost
    intrinsic/intrinsic_color.txt, intrinsic_depth.txt    4 x 4, pixel centres on integers
    intrinsic/extrinsic_color.txt, extrinsic_depth.txt    4 x 4, camera to a common frame; identity in published scans

The world's z points up. The terms of use (non-commercial research and education) hold for the frames too. A hand-held
camera at 30 frames a second hardly moves between two frames: every `step`-th is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gemvlm.camera import Camera, View
from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.asked_frames import Asking, Shot, asked_frames, frame_parts, part_range
from gemvlm.curation.sources.folder import MILLIMETRE_PNG, inside, read_depth, read_frame
from gemvlm.curation.sources.records import RecordError
from gemvlm.curation.sources.registration import register
from gemvlm.curation.sources.rgbd_folder import read_matrix, rigid
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Provenance, Sample

Z_UP = Asking(up=(0.0, 0.0, 1.0))
LICENCE = "LicenseRef-ScanNet-non-commercial"


@dataclass(frozen=True)
class ScanNet:
    """A scene's folder (with `color/`), or a folder of scenes such as `scans/`."""

    path: Path | str
    step: int = 30
    asking: Asking = Z_UP

    @property
    def name(self) -> str:
        return "scannet"

    def parts(self) -> Sequence[str]:
        root = Path(self.path)
        if self.step < 1 or not root.is_dir():
            raise ValueError(f"{root}: no such folder, or step {self.step} is below 1")
        scenes = [folder for folder in (root, *sorted(root.iterdir())) if (folder / "color").is_dir()]
        if not scenes:
            raise ValueError(f"{root}: no folder in it has color/; export the .sens files with ScanNet's reader first")
        names = [scene.relative_to(root).as_posix() for scene in scenes]
        return [part for name in names for part in frame_parts(name, len(self._numbers(name)))]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        scene, start, stop = part_range(part)
        root = Path(self.path)
        known = f"{self.name}/{root.name if scene == '.' else scene}"
        shots = [
            Shot(f"{number:06d}", f"{scene}/color/{number}.jpg", partial(read_scannet_frame, root / scene, number))
            for number in self._numbers(scene)[start:stop]
        ]
        yield from asked_frames(self.name, known, shots, self.asking, Provenance(licence=LICENCE))

    def _numbers(self, scene: str) -> list[int]:
        """Frames that have colour or depth: where one of the two is missing, reading says so."""
        found = (*(Path(self.path) / scene).glob("color/*.jpg"), *(Path(self.path) / scene).glob("depth/*.png"))
        return sorted({int(path.stem) for path in found if path.stem.isdecimal()})[:: self.step]


def read_scannet_frame(scene: Path, number: int) -> Frame:
    """A scene's frame with its depth registered to the colour image. RecordError names what is missing or wrong."""
    frame = read_frame(inside(scene, f"color/{number}.jpg", "color"), field="color")
    height, width = frame.image.shape[:2]
    depth = read_depth(inside(scene, f"depth/{number}.png", "depth"), MILLIMETRE_PNG)
    calibration = read_calibration(scene / "intrinsic")
    pose = read_matrix(inside(scene, f"pose/{number}.txt", "pose"), (4, 4), finite=False)
    if not np.isfinite(pose).all():
        raise RecordError("pose_lost", f"pose/{number}.txt is not finite: tracking was lost in this frame", "pose")
    camera = calibration.color_camera(width, height)
    view = View(camera, rigid(pose, scene / f"pose/{number}.txt") @ np.linalg.inv(calibration.color_from_depth))
    return replace(frame, depth=calibration.register(depth, width, height), view=view)


@dataclass(frozen=True)
class Calibration:
    """Intrinsics (3 x 3, pixel centres on integers) of both cameras and the transform between them, in metres."""

    color: Float[np.ndarray, "3 3"]
    depth: Float[np.ndarray, "3 3"]
    color_from_depth: Float[np.ndarray, "4 4"]

    def color_camera(self, width: int, height: int) -> Camera:
        return _camera(self.color, width, height)

    def register(self, depth: DepthMap, width: int, height: int) -> DepthMap:
        """z-depth in a colour image of `width` x `height`."""
        source = _camera(self.depth, depth.values.shape[1], depth.values.shape[0])
        return register(depth, source, self.color_camera(width, height), self.color_from_depth)


@lru_cache(maxsize=64)
def read_calibration(folder: Path) -> Calibration:
    """From `intrinsic_*.txt` and, where there are any, `extrinsic_*.txt`. ValueError if missing or no calibration."""
    color, depth = (_intrinsics(folder / f"intrinsic_{name}.txt") for name in ("color", "depth"))
    paths = [folder / f"extrinsic_{name}.txt" for name in ("color", "depth")]
    common = [rigid(read_matrix(path, (4, 4)), path) if path.is_file() else np.eye(4) for path in paths]
    return Calibration(color, depth, np.linalg.inv(common[0]) @ common[1])


def _intrinsics(path: Path) -> Float[np.ndarray, "3 3"]:
    if not path.is_file():
        raise RecordError("missing_file", f"{path.name} is missing; export the intrinsics too", "intrinsic")
    k = read_matrix(path, (4, 4))[:3, :3]
    if not (k[0, 0] > 1 and k[1, 1] > 1):
        raise RecordError("bad_intrinsics", f"{path.name}: focal lengths {k[0, 0]}, {k[1, 1]} are none", "intrinsic")
    return k


def _camera(k: Float[np.ndarray, "3 3"], width: int, height: int) -> Camera:
    return Camera(width, height, *(float(x) for x in (k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5)))
