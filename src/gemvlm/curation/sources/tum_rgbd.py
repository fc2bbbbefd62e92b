"""TUM RGB-D: pictures, depth and poses with a time stamp each, put together by the nearest time.

Stated by the data set's page "File Formats" (Computer Vision Group, TU Munich; Sturm et al., IROS 2012) and its tool
`associate.py`. Below a sequence's folder:

    rgb.txt, depth.txt     lines "TIMESTAMP FILE", seconds; lines that begin with # are comments
    rgb/*.png              640 x 480, 8-bit RGB
    depth/*.png            640 x 480, 16-bit, 5000 counts per metre along the optical axis, 0 = no value;
                           registered to the colour image, pixel by pixel
    groundtruth.txt        lines "TIMESTAMP tx ty tz qx qy qz qw": the colour camera in the motion capture's world,
                           metres and a unit quaternion, OpenCV axes; the world's z points up

Stamps match if they differ by less than 0.02 s, nearest pairs first. Because depth was registered with the driver's
default calibration, the page recommends that one (525, 525, 319.5, 239.5), without undistortion. Licence CC BY 4.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gemvlm.camera import Camera, View
from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.asked_frames import Asking, Shot, asked_frames, frame_parts, part_range
from gemvlm.curation.sources.folder import DepthFormat, inside, read_depth, read_frame
from gemvlm.curation.sources.records import RecordError
from gemvlm.sample import Frame, Provenance, Sample

DEPTH = DepthFormat("metric_z", 1 / 5000)
Z_UP = Asking(up=(0.0, 0.0, 1.0))
FARTHEST_APART_S = 0.02
KINECT_DEFAULT = (525.0, 525.0, 319.5, 239.5)
LARGEST_LIST = 64 << 20


@dataclass(frozen=True)
class TumRgbd:
    """A sequence's folder (with `rgb.txt`), or a folder of sequences. Every `step`-th picture is taken.

    `intrinsics` are fx, fy and the centre, pixel centres on integers.
    """

    path: Path | str
    step: int = 30
    intrinsics: tuple[float, float, float, float] = KINECT_DEFAULT
    asking: Asking = Z_UP

    @property
    def name(self) -> str:
        return "tum-rgbd"

    def parts(self) -> Sequence[str]:
        root = Path(self.path)
        if self.step < 1 or not root.is_dir():
            raise ValueError(f"{root}: no such folder, or step {self.step} is below 1")
        found = [folder for folder in (root, *sorted(root.iterdir())) if (folder / "rgb.txt").is_file()]
        if not found:
            raise ValueError(f"{root}: no folder in it has rgb.txt; unpack a sequence there")
        for folder in found:
            listed = {match.color for match in associated(folder)}
            there = {path.relative_to(folder).as_posix() for path in folder.glob("rgb/*.png")}
            if not listed or not there <= listed:
                told = f"lists {len(listed)} pictures, {len(there - listed)} in rgb/ are not among them"
                raise ValueError(f"{folder}/rgb.txt: {told}; unpack the sequence again")
        return [
            part
            for folder in found
            for part in frame_parts(folder.relative_to(root).as_posix(), len(associated(folder)[:: self.step]))
        ]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        sequence, start, stop = part_range(part)
        folder = Path(self.path) / sequence
        known = f"{self.name}/{Path(self.path).name if sequence == '.' else sequence}"
        shots = [
            Shot(f"{match.time_s:.6f}", f"{sequence}/{match.color}", partial(self._frame, folder, match))
            for match in associated(folder)[:: self.step][start:stop]
        ]
        yield from asked_frames(self.name, known, shots, self.asking, Provenance(licence="CC-BY-4.0"))

    def _frame(self, folder: Path, match: Match) -> Frame:
        if match.depth is None or match.pose is None:
            missing = "depth" if match.depth is None else "pose"
            told = f"no {missing} within {FARTHEST_APART_S} s of {match.color}"
            raise RecordError(f"no_{missing}", told, "depth.txt" if match.depth is None else "groundtruth.txt")
        depth = read_depth(inside(folder, match.depth, "depth.txt"), DEPTH)
        frame = read_frame(inside(folder, match.color, "rgb.txt"), depth, field="rgb.txt")
        height, width = frame.image.shape[:2]
        fx, fy, x, y = self.intrinsics
        return replace(frame, view=View(Camera(width, height, fx, fy, x + 0.5, y + 0.5), transform(match.pose)))


@dataclass(frozen=True)
class Match:
    """A picture and what was measured at its time: a depth file and (tx, ty, tz, qx, qy, qz, qw), or None."""

    time_s: float
    color: str
    depth: str | None
    pose: tuple[float, ...] | None


def associated(folder: Path) -> tuple[Match, ...]:
    """The pictures of a sequence in the order of time. ValueError names the list, and line, that is wrong."""
    lists = (folder / name for name in ("rgb.txt", "depth.txt", "groundtruth.txt"))
    stamps = tuple((path, path.stat().st_mtime_ns if path.is_file() else 0) for path in lists)
    return _associated(stamps)


@lru_cache(maxsize=8)
def _associated(lists: tuple[tuple[Path, int], ...]) -> tuple[Match, ...]:
    colors, depths, poses = (_read_list(path, 2 if path.stem != "groundtruth" else 8) for path, _ in lists)
    times = np.array([time for time, _ in colors])
    to_depth = nearest_pairs(times, np.array([time for time, _ in depths]))
    pose_times = np.array([time for time, _ in poses])
    matches = []
    for i, (time, words) in enumerate(colors):
        depth = depths[to_depth[i]][1][0] if i in to_depth else None
        at = int(np.abs(pose_times - time).argmin()) if len(poses) else -1
        near = at >= 0 and abs(pose_times[at] - time) < FARTHEST_APART_S
        pose = tuple(_number(word, lists[2][0]) for word in poses[at][1]) if near else None
        matches.append(Match(time, words[0], depth, pose))
    return tuple(matches)


def nearest_pairs(first: Float[np.ndarray, "N"], second: Float[np.ndarray, "M"]) -> dict[int, int]:
    """Which of `second` belongs to each of `first`: sorted times (seconds), nearest pairs first, none used twice."""
    candidates = []
    for i, time in enumerate(first):
        low, high = np.searchsorted(second, [time - FARTHEST_APART_S, time + FARTHEST_APART_S])
        candidates += [
            (abs(second[j] - time), i, j) for j in range(low, high) if abs(second[j] - time) < FARTHEST_APART_S
        ]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(candidates):
        if i not in pairs and j not in taken:
            pairs[i] = int(j)
            taken.add(j)
    return pairs


def transform(pose: Sequence[float]) -> Float[np.ndarray, "4 4"]:
    """(tx, ty, tz, qx, qy, qz, qw) as a camera-to-world transform. RecordError if the quaternion is not a unit one."""
    x, y, z, w = pose[3:]
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not (all(map(math.isfinite, pose)) and abs(norm - 1) < 0.01):
        raise RecordError(
            "pose_lost", f"the quaternion of {tuple(pose)} has length {norm:.3f}, not 1", "groundtruth.txt"
        )
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = pose[:3]
    return matrix


def _read_list(path: Path, words: int) -> list[tuple[float, list[str]]]:
    """(time, the words after it) of each line, in the order of time."""
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise ValueError(f"{path}: more than {LARGEST_LIST >> 20} MiB, which no list of frames needs")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: can't be read ({error}); unpack the sequence again") from error
    rows = []
    for number, line in enumerate(lines, 1):
        found = line.replace(",", " ").split()
        if not found or found[0].startswith("#"):
            continue
        if len(found) != words:
            raise ValueError(f"{path}:{number}: expected {words} words, found {len(found)}; unpack the sequence again")
        rows.append((_number(found[0], path), found[1:]))
    return sorted(rows)


def _number(word: str, path: Path) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise ValueError(f"{path}: {word!r:.40} is not a number; unpack the sequence again") from error
