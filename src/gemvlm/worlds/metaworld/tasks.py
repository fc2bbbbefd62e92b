"""The 50 tasks of Meta-World v3 in words, and what stands on each table.

Names and colours are ours, chosen by looking at every scene: the models name bodies, but not as a person would. Keys
are the simulator's task, model file and body names (package `metaworld` 3.1.1, its `env_dict` and `assets/sawyer_xyz`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A task: what to do, in words and as a verb, to which thing (its category), and where (a category, if any).

    Whether `hidden` tasks are done can't be seen: they end at a mark that is not drawn, behind something, in a way that
    only convention calls done (which way is a faucet off?), or too early (a cube that is still held over its bin).
    """

    instruction: str
    verb: str
    target: str
    place: str | None = None
    hidden: bool = False


@dataclass(frozen=True)
class Kind:
    """How a body and all below it is called, and whether it can be taken up or pushed about. "" is of no one colour."""

    category: str
    colour: str
    movable: bool = False


TASKS: dict[str, Task] = {
    "assembly-v3": Task("put the nut on the peg", "put", "nut", "peg", hidden=True),
    "basketball-v3": Task("put the basketball through the hoop", "put", "basketball", "basketball hoop", hidden=True),
    "bin-picking-v3": Task("move the cube from the red bin to the blue bin", "move", "cube", hidden=True),
    "box-close-v3": Task("close the box with the lid", "put", "lid", "box"),
    "button-press-topdown-v3": Task("press the button down from above", "press", "button"),
    "button-press-topdown-wall-v3": Task("press the button behind the wall down from above", "press", "button"),
    "button-press-v3": Task("press the button on the side of the box", "press", "button"),
    "button-press-wall-v3": Task(
        "reach around the wall and press the button on the side of the box", "press", "button"
    ),
    "coffee-button-v3": Task("press the button of the coffee machine", "press", "button", hidden=True),
    "coffee-pull-v3": Task("pull the mug away from the coffee machine", "pull", "mug", hidden=True),
    "coffee-push-v3": Task("push the mug under the coffee machine", "push", "mug", "coffee machine"),
    "dial-turn-v3": Task("turn the dial", "turn", "dial", hidden=True),
    "disassemble-v3": Task("take the nut off the peg", "take", "nut", "peg"),
    "door-close-v3": Task("close the door of the safe", "close", "safe door"),
    "door-lock-v3": Task("lock the door by turning the lock", "turn", "lock", hidden=True),
    "door-open-v3": Task("open the door of the safe", "open", "safe door"),
    "door-unlock-v3": Task("unlock the door by turning the lock", "turn", "lock", hidden=True),
    "drawer-close-v3": Task("push the drawer shut", "close", "drawer"),
    "drawer-open-v3": Task("pull the drawer open", "open", "drawer"),
    "faucet-close-v3": Task("turn the faucet off", "turn", "faucet handle", hidden=True),
    "faucet-open-v3": Task("turn the faucet on", "turn", "faucet handle", hidden=True),
    "hammer-v3": Task("drive the nail in with the hammer", "hammer", "hammer", "nail", hidden=True),
    "hand-insert-v3": Task("put the gripper with the block into the hole", "insert", "block", hidden=True),
    "handle-press-side-v3": Task("press the sideways handle down", "press", "handle"),
    "handle-press-v3": Task("press the handle down", "press", "handle"),
    "handle-pull-side-v3": Task("pull the sideways handle up", "pull", "handle"),
    "handle-pull-v3": Task("pull the handle up", "pull", "handle"),
    "lever-pull-v3": Task("pull the lever up", "pull", "lever"),
    "peg-insert-side-v3": Task(
        "insert the peg into the hole in the side of the block", "insert", "peg", "block", hidden=True
    ),
    "peg-unplug-side-v3": Task("pull the plug out of the socket", "pull", "plug", "socket"),
    "pick-out-of-hole-v3": Task("take the puck out of the hole", "pick", "puck", hidden=True),
    "pick-place-v3": Task("pick up the puck and hold it at the goal", "pick", "puck", hidden=True),
    "pick-place-wall-v3": Task("carry the puck over the wall to the goal", "pick", "puck", hidden=True),
    "plate-slide-back-side-v3": Task(
        "slide the puck sideways out of the hockey goal", "slide", "puck", "hockey goal", hidden=True
    ),
    "plate-slide-back-v3": Task(
        "slide the puck back out of the hockey goal", "slide", "puck", "hockey goal", hidden=True
    ),
    "plate-slide-side-v3": Task("slide the puck sideways into the hockey goal", "slide", "puck", "hockey goal"),
    "plate-slide-v3": Task("slide the puck into the hockey goal", "slide", "puck", "hockey goal"),
    "push-back-v3": Task("push the cube back towards the robot", "push", "cube", hidden=True),
    "push-v3": Task("push the puck to the goal", "push", "puck", hidden=True),
    "push-wall-v3": Task("push the puck around the wall to the goal", "push", "puck", hidden=True),
    "reach-v3": Task("move the gripper to the goal and leave the puck alone", "reach", "puck", hidden=True),
    "reach-wall-v3": Task(
        "move the gripper past the wall to the goal and leave the puck alone", "reach", "puck", hidden=True
    ),
    "shelf-place-v3": Task("put the cube on the shelf", "put", "cube", "shelf", hidden=True),
    "soccer-v3": Task("kick the soccer ball into the soccer goal", "push", "soccer ball", "soccer goal"),
    "stick-pull-v3": Task("pull the thermos with the stick", "pull", "thermos", hidden=True),
    "stick-push-v3": Task("push the thermos with the stick", "push", "thermos", hidden=True),
    "sweep-into-v3": Task("sweep the block into the hole", "sweep", "block"),
    "sweep-v3": Task("sweep the cube off to the side of the table", "sweep", "cube", hidden=True),
    "window-close-v3": Task("slide the window shut", "close", "window"),
    "window-open-v3": Task("slide the window open", "open", "window"),
}

ALTERNATIVES: tuple[tuple[str, ...], ...] = (
    ("assembly-v3", "disassemble-v3"),
    ("coffee-button-v3", "coffee-pull-v3", "coffee-push-v3"),
    ("door-close-v3", "door-open-v3"),
    ("drawer-close-v3", "drawer-open-v3"),
    ("hand-insert-v3", "sweep-into-v3"),
    ("handle-press-v3", "handle-pull-v3"),
    ("handle-press-side-v3", "handle-pull-side-v3"),
    ("plate-slide-v3", "plate-slide-back-v3"),
    ("plate-slide-side-v3", "plate-slide-back-side-v3"),
    ("stick-pull-v3", "stick-push-v3"),
    ("window-close-v3", "window-open-v3"),
)
"""Tasks that share a scene and can be told apart by what is done in it."""

_PUCK = {"obj": Kind("puck", "red", True)}
_WALL = {"wall": Kind("brick wall", "brown")}
_BUTTON = {"box": Kind("box", ""), "button": Kind("button", "red")}
_NUT = {"RoundNut": Kind("nut", "", True), "peg": Kind("peg", "red")}
_HOCKEY = {"puck_channel": Kind("puck", "black", True), "puck_goal": Kind("hockey goal", "")}
_HANDLE = {"box": Kind("box", "grey"), "handle_link": Kind("handle", "red")}

EVERYWHERE: dict[str, Kind] = {
    "world": Kind("floor", "white"),
    "tablelink": Kind("table", "brown"),
    "RetainingWall": Kind("table edge", "grey"),
    "base": Kind("robot", "red"),
}
ROBOT, TABLE = "base", "tablelink"

THINGS: dict[str, dict[str, Kind]] = {
    "sawyer_assembly_peg.xml": _NUT,
    "sawyer_basketball.xml": {
        "bsktball": Kind("basketball", "orange", True),
        "basket_goal": Kind("basketball hoop", ""),
    },
    "sawyer_bin_picking.xml": {
        "obj": Kind("cube", "green", True),
        "bin_start": Kind("bin", "red"),
        "bin_goal": Kind("bin", "blue"),
    },
    "sawyer_box.xml": {"boxbody": Kind("box", "brown"), "boxbodytop": Kind("lid", "brown", True)},
    "sawyer_button_press_topdown.xml": _BUTTON,
    "sawyer_button_press_topdown_wall.xml": _BUTTON | _WALL,
    "sawyer_button_press.xml": _BUTTON,
    "sawyer_button_press_wall.xml": _BUTTON | _WALL,
    "sawyer_coffee.xml": {
        "obj": Kind("mug", "white", True),
        "coffee_machine": Kind("coffee machine", "red"),
        "cmbutton": Kind("button", "grey"),
    },
    "sawyer_dial.xml": {"dial": Kind("dial", "grey")},
    "sawyer_door_pull.xml": {"door": Kind("safe", "grey"), "door_link": Kind("safe door", "grey")},
    "sawyer_door_lock.xml": {"door": Kind("safe", "grey"), "lock_link": Kind("lock", "grey")},
    "sawyer_table_with_hole.xml": {"obj": Kind("block", "brown", True)},
    "sawyer_drawer.xml": {"drawer": Kind("cabinet", "green"), "drawer_link": Kind("drawer", "green")},
    "sawyer_faucet.xml": {"faucetBase": Kind("faucet", "grey"), "faucet_link2": Kind("faucet handle", "red")},
    "sawyer_hammer.xml": {
        "hammerbody": Kind("hammer", "", True),
        "box": Kind("block", "brown"),
        "nail_link": Kind("nail", "grey"),
    },
    "sawyer_handle_press_sideways.xml": _HANDLE,
    "sawyer_handle_press.xml": _HANDLE,
    "sawyer_lever_pull.xml": {"lever": Kind("lever stand", "grey"), "lever_link1": Kind("lever", "")},
    "sawyer_pick_place_wall_v3.xml": _PUCK | _WALL,
    "sawyer_pick_out_of_hole.xml": _PUCK,
    "sawyer_pick_place_v3.xml": _PUCK,
    "sawyer_plate_slide.xml": _HOCKEY,
    "sawyer_plate_slide_sideway.xml": _HOCKEY,
    "sawyer_peg_insertion_side.xml": {"peg": Kind("peg", "green", True), "box": Kind("block", "brown")},
    "sawyer_peg_unplug_side.xml": {"plug1": Kind("plug", "black", True), "box": Kind("socket", "white")},
    "sawyer_soccer.xml": {
        "soccer_ball": Kind("soccer ball", "white", True),
        "goal_whole": Kind("soccer goal", ""),
    },
    "sawyer_stick_obj.xml": {"stick": Kind("stick", "blue", True), "object": Kind("thermos", "", True)},
    "sawyer_push_v3.xml": _PUCK,
    "sawyer_push_wall_v3.xml": _PUCK | _WALL,
    "sawyer_push_back_v3.xml": {"obj": Kind("cube", "brown", True)},
    "sawyer_reach_v3.xml": _PUCK,
    "sawyer_reach_wall_v3.xml": _PUCK | _WALL,
    "sawyer_shelf_placing.xml": {"obj": Kind("cube", "blue", True), "shelf": Kind("shelf", "brown")},
    "sawyer_sweep_v3.xml": {"obj": Kind("cube", "brown", True)},
    "sawyer_window_horizontal.xml": {"window": Kind("window", "brown")},
}
