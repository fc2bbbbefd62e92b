"""A small scene with known answers, read by rays; and the same by OpenGL where OSMesa is there."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from gemvlm.camera import Camera, View
from gemvlm.worlds.mujoco_view import MujocoView, Thing, geoms_of, model_view, subtree

SCENE = """
<mujoco>
  <visual><global offwidth="64" offheight="64"/></visual>
  <worldbody>
    <camera name="upright" pos="0 -2 1" xyaxes="1 0 0 0 0.447 0.894"/>
    <camera name="upside_down" pos="0 -2 1" xyaxes="-1 0 0 0 -0.447 -0.894"/>
    <light pos="0 0 3"/>
    <geom name="floor" type="plane" size="5 5 0.1"/>
    <body name="table" pos="0 0 0.2"><geom type="box" size="0.5 0.5 0.2"/></body>
    <body name="cube" pos="-0.2 0 0.4495">
      <freejoint/><geom type="box" size="0.05 0.05 0.05" rgba="1 0 0 1"/>
      <body name="lid" pos="0 0 0.06"><geom type="box" size="0.05 0.05 0.01" rgba="1 0 0 1"/></body>
    </body>
    <body name="ball" pos="0.2 0 0.4495"><freejoint/><geom type="sphere" size="0.05" rgba="0 0 1 1"/></body>
    <body name="glass" pos="0.2 -0.3 0.5"><geom type="box" size="0.15 0.005 0.1" rgba="0 0 0 0.1"/></body>
    <body name="screen" pos="-0.2 -0.3 0.45"><geom type="box" size="0.025 0.005 0.15"/></body>
    <body name="gripper" pos="0 0.3 0.8"><geom type="box" size="0.1 0.1 0.01"/></body>
    <body name="caught" pos="0 0.3 0.8595"><freejoint/><geom type="box" size="0.05 0.05 0.05"/></body>
  </worldbody>
</mujoco>
"""
NAMES = ("floor", "table", "cube", "ball", "screen", "gripper", "caught")


@pytest.fixture(scope="module")
def scene() -> tuple:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def reader(model, samples: str = "plain") -> MujocoView:
    things = []
    for name in NAMES:
        root = 0 if name == "floor" else model.body(name).id
        bodies = (0,) if name == "floor" else subtree(model, root)
        movable = name in ("cube", "ball", "caught")
        things.append(Thing(name, "", geoms_of(model, bodies), root, movable, holder=name == "gripper"))
    return MujocoView(model, things, frozenset({0, 1, 2}), "test", samples)


def looking_down() -> View:
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, 3] = (-0.2, 0, 2)
    return View(Camera.from_fov(65, 65, 45.0), pose)


def test_depth_and_ids_of_a_known_scene(scene):
    model, data = scene
    seen = reader(model).observe(data, looking_down(), "s")
    assert seen.ids[32, 32] == NAMES.index("cube") + 1
    assert seen.depth.values[32, 32] == pytest.approx(2 - 0.5195, abs=1e-5)
    assert seen.ids[0, 0] == 1 and seen.depth.values[0, 0] == pytest.approx(2, abs=1e-5)
    assert seen.depth.origin is not None and seen.depth.origin.provenance == "simulator"


def test_rays_past_everything_are_invalid(scene):
    model, data = scene
    pose = np.eye(4)
    pose[:3, 3] = (0, 0, 3)
    seen = reader(model).observe(data, View(Camera.from_fov(16, 16, 30.0), pose), "s")
    assert not seen.depth.valid.any() and not seen.ids.any()


def test_a_screen_hides_and_glass_does_not(scene):
    model, data = scene
    view = model_view(model, data, "upright", (96, 96))
    states = {o.category: o for o in reader(model).observe(data, view, "s").objects}
    assert states["ball"].visible_fraction == 1
    assert 0.3 < states["cube"].visible_fraction < 0.7
    assert states["cube"].visible_pixels > 0


def test_who_carries_whom(scene):
    model, data = scene
    states = {o.category: o for o in reader(model).states(data)}
    table = NAMES.index("table") + 1
    assert states["cube"].supported_by == (table,) and states["ball"].supported_by == (table,)
    assert states["caught"].supported_by == () and states["caught"].hanging
    assert not states["cube"].hanging
    assert states["table"].supported_by == ()


def test_a_box_holds_the_whole_thing(scene):
    model, data = scene
    box = reader(model).box(data, NAMES.index("cube") + 1)
    np.testing.assert_allclose(box.center, (-0.2, 0, 0.4595), atol=1e-9)
    np.testing.assert_allclose(box.half_extents, (0.05, 0.05, 0.06), atol=1e-9)


def test_an_upside_down_camera_sees_the_same(scene):
    model, data = scene
    view = reader(model)
    one = view.observe(data, model_view(model, data, "upright", (48, 64)), "s")
    other = view.observe(data, model_view(model, data, "upside_down", (48, 64)), "s")
    np.testing.assert_array_equal(one.ids, other.ids)
    columns = {name: np.nonzero(one.ids == NAMES.index(name) + 1)[1].mean() for name in ("cube", "ball")}
    assert columns["cube"] < columns["ball"], "the cube is on the left of the ball"


def test_two_things_may_not_share_a_geom(scene):
    model, _ = scene
    thing = Thing("cube", "", geoms_of(model, [model.body("cube").id]), 0, True)
    with pytest.raises(ValueError, match="shares geoms"):
        MujocoView(model, [thing, thing], frozenset({0}), "test")


def test_an_unknown_camera_is_named(scene):
    model, data = scene
    with pytest.raises(ValueError, match=r"'side' is unknown.*upright"):
        model_view(model, data, "side", (8, 8))


def test_rays_agree_with_the_depth_buffer(scene):
    model, data = scene
    canvas = pytest.importorskip("gemvlm.worlds.mujoco_gl").Canvas
    try:
        gl = canvas(model, frozenset({0, 1, 2}), sites=False, samples=0)
    except ImportError as error:
        pytest.skip(str(error))
    view = model_view(model, data, "upright", (64, 64))
    seen = reader(model).observe(data, view, "s")
    apart = np.abs(gl.z_depth(data, view) - seen.depth.values)[seen.depth.valid] / seen.depth.values[seen.depth.valid]
    assert np.mean(apart < 0.002) > 0.99
    image = gl.draw(data, view)
    cube = seen.ids == NAMES.index("cube") + 1
    assert image[cube][:, 0].mean() > 1.5 * image[cube][:, 2].mean(), "the cube is red, and where the ids say"
    gl.close()
