"""Colour pictures of a MuJoCo scene through OpenGL, on a machine without a screen or a graphics card.

A picture is drawn for a `View`, not for a camera of the model: a camera that hangs upside down is then only a view that
is turned. Depth and ids come from rays (`mujoco_view`), so that this file may smooth edges as it likes; `z_depth` reads
the depth buffer of an unsmoothed pass, to check the rays against.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from gemvlm.camera import View

SHADOW_MAP = 1024
"""Texels per side. The models ask for 2048 or 4096, which in software is most of the cost of a small picture."""
LARGEST_SIDE = 2048
MISSING = (
    "colour by OpenGL needs OSMesa (Debian: libosmesa6) and PyOpenGL, and MUJOCO_GL unset or 'osmesa': {}. Install "
    "them, or ask for drawing='plain', which shades the same scene with flat colours and needs neither"
)


class Canvas:
    """Draws one MuJoCo model. `groups` are the geom groups that show, `sites` whether marks that nothing touches do.

    Without `shadows` (and reflections) and with `samples` 0 a small picture costs a tenth.
    """

    def __init__(self, model: Any, groups: frozenset[int], sites: bool, samples: int = 4, shadows: bool = True) -> None:
        import mujoco

        context = _osmesa()
        self.model = model
        self.side = 0
        self.samples = samples
        self._new_context = context
        self._gl: Any = None
        self._mjr: Any = None
        self.scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nsite + 100)
        self.option = mujoco.MjvOption()
        self.option.geomgroup[:] = [index in groups for index in range(len(self.option.geomgroup))]
        if not sites:
            self.option.sitegroup[:] = 0
        if not shadows:
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                self.scene.flags[flag.value] = 0

    def draw(self, data: Any, view: View) -> UInt8[np.ndarray, "H W 3"]:
        """The picture that `view` sees of `data`, top row first. ValueError for sides beyond 2048 pixels."""
        return self._read(data, view)[0]

    def z_depth(self, data: Any, view: View) -> Float32[np.ndarray, "H W"]:
        """The depth buffer as metric z, the far plane where nothing is drawn; sharp only if `samples` is 0."""
        return self.draw_with_depth(data, view)[1]

    def draw_with_depth(self, data: Any, view: View) -> tuple[UInt8[np.ndarray, "H W 3"], Float32[np.ndarray, "H W"]]:
        """`draw` and `z_depth` of one pass."""
        image, buffer = self._read(data, view)
        near, far = self._clip()
        return image, (near / (1 - buffer * (1 - near / far))).astype(np.float32)

    @property
    def far_m(self) -> float:
        """Where the far plane is: what is drawn lies before it."""
        return self._clip()[1]

    def _read(self, data: Any, view: View) -> tuple[UInt8[np.ndarray, "H W 3"], Float32[np.ndarray, "H W"]]:
        import mujoco

        height, width = view.camera.height, view.camera.width
        self._prepare(max(height, width))
        viewer = mujoco.MjvCamera()
        mujoco.mjv_updateScene(
            self.model, data, self.option, None, viewer, mujoco.mjtCatBit.mjCAT_ALL.value, self.scene
        )
        self._look(view)
        area = mujoco.MjrRect(0, 0, width, height)
        image, buffer = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.float32)
        mujoco.mjr_render(area, self.scene, self._mjr)
        mujoco.mjr_readPixels(image, buffer, area, self._mjr)
        return np.ascontiguousarray(image[::-1]), np.ascontiguousarray(buffer[::-1])

    def _look(self, view: View) -> None:
        """Puts the scene's camera, and the lamp that rides on it, where the view is."""
        near, far = self._clip()
        camera, pose = view.camera, view.camera_to_world
        for eye in self.scene.camera:
            eye.pos, eye.forward, eye.up = pose[:3, 3], pose[:3, 2], -pose[:3, 1]
            eye.frustum_near, eye.frustum_far = near, far
            eye.frustum_center = near * (camera.width / 2 - camera.cx) / camera.fx
            eye.frustum_top = near * camera.cy / camera.fy
            eye.frustum_bottom = -near * (camera.height - camera.cy) / camera.fy
            eye.frustum_width = near * camera.width / 2 / camera.fx
        for light in self.scene.lights[: self.scene.nlight]:
            if light.headlight:
                light.pos, light.dir = pose[:3, 3], pose[:3, 2]

    def _clip(self) -> tuple[float, float]:
        extent = self.model.stat.extent
        return float(self.model.vis.map.znear * extent), float(self.model.vis.map.zfar * extent)

    def _prepare(self, side: int) -> None:
        """A context of at least `side` pixels each way, made current."""
        import mujoco

        if side > LARGEST_SIDE:
            raise ValueError(f"picture: a side of {side} pixels is beyond {LARGEST_SIDE}; ask for a smaller one")
        if side > self.side:
            self.close()
            self.side = side
            quality, size = self.model.vis.quality, self.model.vis.global_
            quality.offsamples, quality.shadowsize = self.samples, SHADOW_MAP
            size.offwidth, size.offheight = side, side
            self._gl = self._new_context(side, side)
            self._gl.make_current()
            self._mjr = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._mjr)
        self._gl.make_current()

    def close(self) -> None:
        """Frees the context; the canvas can still be used afterwards and makes another."""
        if self._mjr is not None:
            self._gl.make_current()
            self._mjr.free()
            self._gl.free()
        self._mjr = self._gl = None
        self.side = 0


def _osmesa() -> Any:
    """The class of OSMesa contexts. ImportError names the packages."""
    if os.environ.setdefault("MUJOCO_GL", "osmesa").lower() != "osmesa":
        raise ImportError(MISSING.format(f"MUJOCO_GL is {os.environ['MUJOCO_GL']!r}"))
    try:
        from mujoco.osmesa import GLContext
    except (ImportError, AttributeError, OSError) as error:
        raise ImportError(MISSING.format(error)) from error
    return GLContext
