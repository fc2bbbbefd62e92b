"""Depth as a surface to be turned around: a binary glTF file of coloured triangles, no triangle across an edge.

The format is glTF 2.0 with the extension KHR_materials_unlit, of the repository KhronosGroup/glTF: one mesh, positions
in metres (x right, y up, z towards the viewer), colours linear.
"""

from __future__ import annotations

import json
import struct

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt32
from PIL import Image

from gemvlm.camera import Camera
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.depth import AFFINE_KINDS, from_space
from gemvlm.figure.pictures import depth_limits

LONGEST_SIDE = 160
"""Vertices along the longer side: 25,600 at most, which any browser turns with ease."""
EDGE = 1.1
"""Neighbours whose depths differ by more than this ratio lie on different things: no triangle joins them."""
FARTHEST = 2.0
"""In medians of the depth: what lies beyond is left out, so that the background does not make the scene tiny."""
RELATIVE_RANGE = (1.0, 3.0)
"""Where depth without a unit is put, in front of the camera."""

FLOATS, INDICES = 5126, 5125
ARRAY, ELEMENTS = 34962, 34963


def depth_surface(image: UInt8[np.ndarray, "H W 3"], depth: DepthMap, fov_y_deg: float) -> bytes:
    """The file's bytes. The camera is taken to be centred, with that vertical field of view in degrees."""
    shrink = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
    height, width = (max(2, round(side * shrink)) for side in image.shape[:2])
    colours = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
    z, valid = shown_z(depth.resized(width, height))
    camera = Camera.from_fov(width, height, fov_y_deg)
    points = camera.rays() * z[..., None] * (1.0, -1.0, -1.0)
    triangles = _triangles(z, valid)
    used = np.unique(triangles)
    renumbered = np.zeros(z.size, np.uint32)
    renumbered[used] = np.arange(len(used))
    places = points.reshape(-1, 3)[used].astype(np.float32)
    places -= np.median(places, axis=0) if len(places) else 0
    linear = ((colours.reshape(-1, 3)[used] / 255.0) ** 2.2).astype(np.float32)
    return _glb(places, linear, renumbered[triangles])


def shown_z(depth: DepthMap) -> tuple[Float[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Depth along the axis, for the eye: in metres up to `FARTHEST`, or without a unit within `RELATIVE_RANGE`."""
    if depth.is_metric:
        z = np.where(depth.valid, depth.values, 1.0)
        return z, depth.valid & (z <= FARTHEST * np.median(z[depth.valid])) if depth.valid.any() else depth.valid
    space = next(space for space, kind in AFFINE_KINDS.items() if kind == depth.kind)
    low, high = depth_limits(depth.values, depth.valid)
    share = np.clip((depth.values - low) / (high - low), 0, 1)
    near, far = RELATIVE_RANGE
    if space in ("disparity", "sqrt_disparity"):
        power = 1 if space == "disparity" else 0.5
        scaled = (1 / far) ** power + share * ((1 / near) ** power - (1 / far) ** power)
    elif space == "log":
        scaled = np.log(near) + share * np.log(far / near)
    else:
        scaled = near + share * (far - near)
    return np.where(depth.valid, from_space(scaled, space), 1.0), depth.valid


def _triangles(z: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, "n 3"]:
    """Two triangles for each square of four neighbours that lie on one thing, as indices of pixels."""
    index = np.arange(z.size).reshape(z.shape)
    corners = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], axis=-1).reshape(-1, 4)
    depths = z.reshape(-1)[corners]
    whole = valid.reshape(-1)[corners].all(axis=1) & (depths.max(axis=1) < EDGE * depths.min(axis=1))
    square = corners[whole]
    return np.concatenate([square[:, [0, 1, 2]], square[:, [0, 2, 3]]])


def _glb(
    places: Float[np.ndarray, "v 3"], colours: Float[np.ndarray, "v 3"], triangles: UInt32[np.ndarray, "n 3"]
) -> bytes:
    parts = [places.tobytes(), colours.tobytes(), triangles.tobytes()]
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    low, high = (places.min(axis=0), places.max(axis=0)) if len(places) else (np.zeros(3), np.zeros(3))
    count = len(places)
    document = {
        "asset": {"version": "2.0", "generator": "gemvlm"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0] if count else []}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}]}],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": FLOATS,
                "count": count,
                "type": "VEC3",
                "min": [float(value) for value in low],
                "max": [float(value) for value in high],
            },
            {"bufferView": 1, "componentType": FLOATS, "count": count, "type": "VEC3"},
            {"bufferView": 2, "componentType": INDICES, "count": triangles.size, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(part), "target": target}
            for start, part, target in zip(starts, parts, (ARRAY, ARRAY, ELEMENTS), strict=False)
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }
    if not count:
        for name in ("nodes", "meshes", "materials", "accessors", "bufferViews", "buffers", "extensionsUsed"):
            del document[name]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text
    if count:
        content = b"".join(parts)
        body += struct.pack("<II", len(content), 0x004E4942) + content
    return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body
