"""Recordings for the Rerun viewer (extra `rerun`): pictures, depth in space, places, answers; robot episodes.

    with RerunLog("desk.rrd") as log:
        log.view("desk", image, depth_m, valid, focal=(fx, fy), centre=(cx, cy), camera_to_world=pose)
        log.places("desk", points=[(0.4, 0.6)], labels=["red mug"])

`rerun desk.rrd` opens it. Written against rerun-sdk 0.41 (rerun-io/rerun, docs/content/reference/types/archetypes).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Bool, Float, UInt8

STEP = "step"
"""The timeline: actions since an episode began."""


class RerunLog:
    """One `.rrd` file that grows call by call. Camera axes are OpenCV's; the world has z up, in metres."""

    def __init__(self, path: Path | str, name: str = "gemvlm") -> None:
        self.path = Path(path)
        if self.path.suffix != ".rrd":
            raise ValueError(f"{path}: recordings are written as .rrd, not {self.path.suffix!r}")
        self._rr = _rerun()
        self._stream = self._rr.RecordingStream(name)
        self._stream.save(str(self.path))
        self._stream.log("world", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Writes what is still held back."""
        self._stream.flush()
        self._stream.disconnect()

    def step(self, number: int) -> None:
        """What is logged from here on belongs to this step of an episode."""
        self._stream.set_time(STEP, sequence=number)

    def view(
        self,
        name: str,
        image: UInt8[np.ndarray, "H W 3"],
        depth_m: Float[np.ndarray, "H W"] | None = None,
        valid: Bool[np.ndarray, "H W"] | None = None,
        *,
        focal: tuple[float, float],
        centre: tuple[float, float],
        camera_to_world: Float[np.ndarray, "4 4"] | None = None,
    ) -> None:
        """A picture through its camera (pixels), with z-depth as a cloud in space; without a pose it stands at 0."""
        rr, height, width = self._rr, image.shape[0], image.shape[1]
        pose = np.eye(4) if camera_to_world is None else camera_to_world
        self._stream.log(f"world/{name}", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        self._stream.log(
            f"world/{name}/image",
            rr.Pinhole(focal_length=focal, principal_point=centre, width=width, height=height),
        )
        self._stream.log(f"world/{name}/image/rgb", rr.Image(image))
        if depth_m is not None:
            known = np.isfinite(depth_m) & (depth_m > 0) & (np.ones_like(depth_m, bool) if valid is None else valid)
            metres = np.where(known, depth_m, 0).astype(np.float32)  # 0 is Rerun's "no depth"
            self._stream.log(f"world/{name}/image/depth", rr.DepthImage(metres, meter=1.0))

    def places(
        self,
        name: str,
        size: tuple[int, int],
        points: Sequence[tuple[float, float]] = (),
        boxes: Sequence[tuple[float, float, float, float]] = (),
        labels: Sequence[str] = (),
    ) -> None:
        """Points and boxes as fractions of the picture `name` of `size` (height, width); labels: points, then boxes."""
        rr, scale = self._rr, np.array([size[1], size[0]], np.float64)
        names = [*labels, *[""] * (len(points) + len(boxes) - len(labels))]
        if points:
            where = np.array(points) * scale
            self._stream.log(
                f"world/{name}/image/points", rr.Points2D(where, radii=max(size) / 60, labels=names[: len(points)])
            )
        if boxes:
            corners = np.array(boxes) * np.tile(scale, 2)
            self._stream.log(
                f"world/{name}/image/boxes",
                rr.Boxes2D(array=corners, array_format=rr.Box2DFormat.XYXY, labels=names[len(points) :]),
            )

    def things(
        self, places_m: Sequence[tuple[float, float, float]], labels: Sequence[str], radius_m: float = 0.01
    ) -> None:
        """Places in the world, in metres."""
        self._stream.log("world/things", self._rr.Points3D(list(places_m), radii=radius_m, labels=list(labels)))

    def answer(self, question: str, answer: str) -> None:
        """A question and what the model said."""
        self._stream.log("answers", self._rr.TextLog(f"{question}\n→ {answer}"))

    def robot(
        self,
        images: Mapping[str, UInt8[np.ndarray, "H W 3"]],
        state: Mapping[str, float],
        chunk: Float[np.ndarray, "T A"] | None = None,
        action_names: Sequence[str] = (),
    ) -> None:
        """One step of an episode: pictures by camera, the state by name, and a chunk of actions if one was made here.

        A chunk is kept twice: its first action on the plots of the episode, and the whole as a picture of one row for
        each dimension and one column for each moment, to see what was planned beside what came.
        """
        for camera, image in images.items():
            self._stream.log(f"cameras/{camera}", self._rr.Image(image))
        for name, value in state.items():
            self._stream.log(f"state/{name}", self._rr.Scalars(float(value)))
        if chunk is None:
            return
        if chunk.ndim != 2 or chunk.shape[1] != len(action_names):
            raise ValueError(f"chunk of shape {chunk.shape} for {len(action_names)} action names; give (time, action)")
        for index, name in enumerate(action_names):
            self._stream.log(f"action/{name}", self._rr.Scalars(float(chunk[0, index])))
        self._stream.log("chunk", self._rr.Tensor(chunk.T.astype(np.float32), dim_names=("action", "time")))


def _rerun() -> ModuleType:
    try:
        return importlib.import_module("rerun")
    except ImportError as error:
        raise ImportError("recordings are written by rerun-sdk: pip install 'gemvlm[rerun]'") from error
