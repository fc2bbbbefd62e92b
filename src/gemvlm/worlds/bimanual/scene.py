"""The model of a table with two floating grippers, and what stands on it in each task.

Metres, kilograms; the table's surface is z = 0, x points to the right and y away from the viewer. A gripper is a palm
with two fingers that slide along its x axis; its z axis points out between them. Each palm is pulled by a soft weld to
a place that is set from outside, so that it stops at what it meets instead of going through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ARMS = ("left", "right")
OPEN_M = 0.08
"""Between the fingers' inner sides when they are open."""
FINGER_M = 0.055
"""From the palm's middle to the point between the finger tips, where a hand's place is measured."""
STEPS_PER_ACTION, RATE_HZ = 20, 30.0
PALMS = {"left": "0.90 0.55 0.15 1", "right": "0.20 0.45 0.85 1"}
HOMES = {"left": (-0.20, -0.10, 0.20), "right": (0.20, -0.10, 0.20)}
TASKS = ("lift-tray", "hand-over", "insert-peg")


@dataclass(frozen=True)
class Piece:
    """A thing of a task: a body by its name, what to call it, its colour word, and its geoms as MuJoCo's XML."""

    name: str
    category: str
    colour: str
    geoms: str
    movable: bool = True


def _box(half: str, at: str, rgba: str, mass: float = 0.02) -> str:
    return f'<geom type="box" size="{half}" pos="{at}" rgba="{rgba}" mass="{mass}"/>'


_WOOD, _RED, _GREEN, _GREY = "0.70 0.52 0.34 1", "0.85 0.20 0.20 1", "0.25 0.65 0.30 1", "0.55 0.55 0.60 1"
_TRAY = Piece(
    "tray",
    "tray",
    "brown",
    _box("0.13 0.09 0.004", "0 0 0.004", _WOOD, 0.15)
    + "".join(_box("0.13 0.004 0.014", f"0 {y} 0.018", _WOOD) for y in (-0.086, 0.086))
    + "".join(_box("0.004 0.09 0.014", f"{x} 0 0.018", _WOOD) for x in (-0.126, 0.126))
    + "".join(_box("0.008 0.045 0.008", f"{x} 0 0.046", _GREY) for x in (-0.126, 0.126))
    + "".join(_box("0.006 0.006 0.011", f"{x} {y} 0.030", _GREY) for x in (-0.126, 0.126) for y in (-0.039, 0.039)),
)
_CUBE = Piece("cube", "cube", "red", _box("0.018 0.018 0.018", "0 0 0.018", _RED, 0.04))
_STICK = Piece(
    "stick",
    "stick",
    "red",
    _box("0.055 0.012 0.012", "-0.055 0 0.012", _RED) + _box("0.055 0.012 0.012", "0.055 0 0.012", "0.95 0.9 0.85 1"),
)
_PAD = Piece("pad", "pad", "green", _box("0.10 0.06 0.001", "0 0 0.001", _GREEN), movable=False)
_BLOCK = Piece(
    "block",
    "block",
    "green",
    "".join(_box("0.028 0.006 0.025", f"0 {y} 0.025", _GREEN) for y in (-0.022, 0.022))
    + "".join(_box("0.006 0.016 0.025", f"{x} 0 0.025", _GREEN) for x in (-0.022, 0.022))
    + _box("0.055 0.010 0.010", "-0.083 0 0.010", _GREY, 0.03),
)
_PEG = Piece("peg", "peg", "red", _box("0.010 0.010 0.050", "0 0 0.050", _RED, 0.05))
PIECES = {"lift-tray": (_TRAY, _CUBE), "hand-over": (_STICK, _PAD), "insert-peg": (_BLOCK, _PEG)}
INSTRUCTIONS = {
    "lift-tray": "lift the tray with both hands and keep the cube on it",
    "hand-over": "pass the stick from the left hand to the right hand and lay it on the green pad",
    "insert-peg": "hold the green block up with the left hand and put the red peg into it with the right hand",
}


def build(task: str) -> Any:
    """The compiled model. ImportError without MuJoCo."""
    try:
        import mujoco
    except ImportError as error:
        raise ImportError(f"the bimanual world needs MuJoCo: pip install 'gemvlm[worlds]' ({error})") from error
    return mujoco.MjModel.from_xml_string(_xml(task))


def _xml(task: str) -> str:
    things = "".join(
        f'<body name="{piece.name}">{"<freejoint/>" if piece.movable else ""}{piece.geoms}</body>'
        for piece in PIECES[task]
    )
    return f"""
<mujoco model="bimanual {task}">
  <compiler angle="radian"/>
  <option timestep="{1 / RATE_HZ / STEPS_PER_ACTION!r}" cone="elliptic" impratio="10" integrator="implicitfast"/>
  <default>
    <geom condim="4" friction="1.2 0.02 0.001" solref="0.006 1" solimp="0.95 0.99 0.001"/>
  </default>
  <visual><headlight ambient="0.4 0.4 0.4" diffuse="0.6 0.6 0.6"/></visual>
  <worldbody>
    <light pos="0 -0.5 1.5" dir="0 0.3 -1" diffuse="0.4 0.4 0.4"/>
    <body name="table"><geom type="box" size="0.5 0.35 0.02" pos="0 0 -0.02" rgba="0.82 0.80 0.76 1"/></body>
    {"".join(_hand(arm) for arm in ARMS)}
    {things}
  </worldbody>
  <equality>
    {"".join(_weld(arm) for arm in ARMS)}
  </equality>
  <actuator>
    {"".join(_grip(arm) for arm in ARMS)}
  </actuator>
</mujoco>"""


def _hand(arm: str) -> str:
    """A palm above its fingers. Hands do not collide with the table's far sides, only with what they can touch."""
    x, y, z = HOMES[arm]
    fingers = "".join(
        f"""
      <body name="{arm}_{side}" pos="0 0 {FINGER_M - 0.028}" gravcomp="1">
        <joint name="{arm}_{side}" type="slide" axis="{sign} 0 0" range="0 {OPEN_M / 2 + 0.002}" damping="8"/>
        <geom type="box" size="0.006 0.010 0.036" pos="{sign * 0.006} 0 0" rgba="0.25 0.25 0.28 1" mass="0.03"
              friction="2.0 0.05 0.001"/>
      </body>"""
        for side, sign in (("low", -1), ("high", 1))
    )
    return f"""
    <body name="{arm}_goal" mocap="true" pos="{x} {y} {z + FINGER_M}" quat="0 1 0 0"/>
    <body name="{arm}_palm" pos="{x} {y} {z + FINGER_M}" quat="0 1 0 0" gravcomp="1">
      <freejoint/>
      <geom type="box" size="0.058 0.018 0.016" pos="0 0 -0.024" rgba="{PALMS[arm]}" mass="0.5"/>
      <geom type="cylinder" size="0.014 0.05" pos="0 0 -0.09" rgba="{PALMS[arm]}" mass="0.1"/>
      <site name="{arm}_hand" pos="0 0 {FINGER_M}" size="0.004" rgba="0 0 0 0"/>{fingers}
    </body>"""


def _weld(arm: str) -> str:
    return f"""
    <weld body1="{arm}_goal" body2="{arm}_palm" solref="0.03 1" solimp="0.9 0.98 0.01"/>
    <joint joint1="{arm}_low" joint2="{arm}_high" solref="0.006 1"/>"""


def _grip(arm: str) -> str:
    """One motor for both fingers, which are coupled."""
    return f"""
    <position name="{arm}_grip" joint="{arm}_high" kp="900" ctrlrange="0 {OPEN_M / 2}" forcerange="-25 25"/>"""
