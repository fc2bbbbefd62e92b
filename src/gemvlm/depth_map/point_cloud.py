"""Depth and colour as coloured points in space, written as PLY.

The format is "ply / binary_little_endian 1.0" of Greg Turk's PLY page (Stanford, 1994): float x, y, z in metres and
uchar red, green, blue for each vertex; MeshLab, CloudCompare, Open3D and Blender open it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from gemvlm.camera import Camera, View
from gemvlm.depth_map.depth import DepthMap

_PLACE, _COLOUR = ("x", "y", "z"), ("red", "green", "blue")
_VERTEX = np.dtype([*((name, "<f4") for name in _PLACE), *((name, "u1") for name in _COLOUR)])


@dataclass(frozen=True)
class PointCloud:
    """N points in metres with their colours, in the camera's frame or the world's."""

    points: Float32[np.ndarray, "N 3"]
    colours: UInt8[np.ndarray, "N 3"]

    def save(self, path: Path | str) -> None:
        """Writes a `.ply` file. ValueError for another suffix."""
        path = Path(path)
        if path.suffix != ".ply":
            raise ValueError(f"{path}: point clouds are written as .ply, not {path.suffix!r}")
        rows = np.empty(len(self.points), _VERTEX)
        for index in range(3):
            rows[_PLACE[index]], rows[_COLOUR[index]] = self.points[:, index], self.colours[:, index]
        lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
        lines += [f"property float {name}" for name in _PLACE] + [f"property uchar {name}" for name in _COLOUR]
        head = "\n".join([*lines, "end_header\n"])
        path.write_bytes(head.encode("ascii") + rows.tobytes())


def point_cloud(image: UInt8[np.ndarray, "H W 3"], depth: DepthMap, view: Camera | View) -> PointCloud:
    """Every pixel with depth where it is: in the camera's frame, or with a `View` in the world's.

    ValueError unless the depth is metric and has the size of the image and of the camera.
    """
    camera = view.camera if isinstance(view, View) else view
    sizes = {image.shape[:2], depth.values.shape, (camera.height, camera.width)}
    if len(sizes) > 1:
        raise ValueError(
            f"point cloud: the image is {image.shape[:2]}, the depth {depth.values.shape} and the camera "
            f"{(camera.height, camera.width)} (height, width); bring them to one size (see `Camera.resized`)"
        )
    if not depth.is_metric:
        raise ValueError(f"point cloud: depth from {depth.source!r} is {depth.kind}; align it to metric truth first")
    z = depth.to_z(camera)
    points = (camera.rays() * z.values[..., None])[z.valid]
    if isinstance(view, View):
        points = view.to_world(points)
    return PointCloud(points.astype(np.float32), image[z.valid])
