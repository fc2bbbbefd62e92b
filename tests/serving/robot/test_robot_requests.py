"""Requests are read in both of openpi's layouts, and every wrong field is told by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from servo_policy import CONTRACT, picture

from gemvlm.robot.embodiments import EMBODIMENTS
from gemvlm.serving.robot_requests import Question, RequestError, RequestReader, Reset

READER = RequestReader(CONTRACT)
IMAGE = picture((0.5, -0.5))


def message(**changes: Any) -> dict[str, Any]:
    fields = {"observation/front": IMAGE, "observation/state": np.array([0.25, -1.0]), "prompt": "go"}
    fields |= {name.replace("__", "/"): value for name, value in changes.items()}
    return {name: value for name, value in fields.items() if value is not ...}


def question(**changes: Any) -> Question:
    read = READER.read(message(**changes))
    assert isinstance(read, Question)
    return read


def test_both_layouts_say_the_same():
    flat = question(step=7, time_s=1.5)
    nested = READER.read(
        {
            "images": {"front": IMAGE},
            "state": np.array([0.25, -1.0], np.float32),
            "prompt": "go",
            "step": 7,
            "time_s": 1.5,
        }
    )
    assert isinstance(nested, Question)
    for read in (flat.observation, nested.observation):
        assert np.array_equal(read.images["front"], IMAGE)
        assert read.state.dtype == np.float32 and read.state.tolist() == [0.25, -1.0]
        assert (read.instruction, read.step, read.time_s) == ("go", 7, 1.5)


def test_a_state_may_be_a_list_and_what_is_left_out_is_none():
    read = question(observation__state=[0.25, -1])
    assert read.observation.state.tolist() == [0.25, -1.0]
    assert (read.step, read.time_s, read.sent_s, read.seed, read.committed) == (None, None, None, None, 0)


def test_openpis_aloha_is_read_with_a_prompt_of_the_server():
    """`examples/aloha_sim/env.py`: pictures (3, height, width), `images` and `state`, no prompt."""
    wide = np.random.default_rng(1).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    sent = {"state": np.zeros(2), "images": {"front": np.transpose(wide, (2, 0, 1))}}
    read = RequestReader(CONTRACT, prompt="transfer the cube").read(sent)
    assert isinstance(read, Question) and read.observation.instruction == "transfer the cube"
    assert np.array_equal(read.observation.images["front"], wide)
    own = RequestReader(CONTRACT, prompt="transfer the cube").read(sent | {"prompt": "wave"})
    assert isinstance(own, Question) and own.observation.instruction == "wave"
    with pytest.raises(RequestError, match=r"prompt: must be text of 1 .* is nothing; .*vla serve --prompt TEXT"):
        READER.read(sent)
    for wrong in (" ", "x" * 5000):
        with pytest.raises(ValueError, match="prompt: must be text"):
            RequestReader(CONTRACT, prompt=wrong)


def test_a_picture_of_three_columns_stands_as_it_came():
    narrow = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert np.array_equal(question(observation__front=narrow).observation.images["front"], narrow)


@pytest.mark.parametrize("grip", [np.array([0.5]), np.array(0.5), [0.5]])
def test_openpis_droid_sends_joints_and_gripper_apart(grip: Any):
    """`examples/droid/main.py`; openpi's `DroidInputs` takes a gripper of no axes as well."""
    contract = EMBODIMENTS["joint_arm"].contract
    reader = RequestReader(contract, {"exterior_image_1_left": "base", "wrist_image_left": "wrist"})
    sent = {
        "observation/exterior_image_1_left": IMAGE,
        "observation/wrist_image_left": IMAGE,
        "observation/joint_position": np.arange(7.0),
        "observation/gripper_position": grip,
        "prompt": "fold",
    }
    read = reader.read(sent)
    assert isinstance(read, Question) and read.observation.state.tolist() == [0, 1, 2, 3, 4, 5, 6, 0.5]
    for name, value, says in (
        ("observation/state", np.zeros(8), "observation/state: came twice"),
        ("observation/gripper_position", np.zeros(2), "and observation/gripper_position: must be 8 .*shape .9,"),
        ("observation/gripper_position", np.zeros((1, 1)), r"must be 8 numbers .*shape \(1, 1\)"),
        ("observation/gripper_position", "open", "must be 8 numbers .*a str of 4"),
        ("observation/gripper_position", [np.nan], "and observation/gripper_position: gripper is nan"),
    ):
        with pytest.raises(RequestError, match=says):
            reader.read(sent | {name: value})
    with pytest.raises(RequestError, match=r"observation/joint_position: .* make up a state together"):
        reader.read({name: value for name, value in sent.items() if "gripper" not in name})


def test_cameras_may_go_by_the_robots_names():
    reader = RequestReader(replace(CONTRACT, cameras=("agentview", "wrist")), {"image": "agentview"})
    fields = {"observation/image": IMAGE, "observation/wrist": IMAGE, "state": [0, 0], "prompt": "go"}
    read = reader.read(fields)
    assert isinstance(read, Question) and list(read.observation.images) == ["agentview", "wrist"]
    with pytest.raises(ValueError, match="stand for none of"):
        RequestReader(CONTRACT, {"image": "nowhere"})


def test_a_reset_carries_a_seed():
    assert READER.read({"reset": True, "seed": 3}) == Reset(3)
    assert READER.read({"reset": True}) == Reset(None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"observation__front": ...}, r"observation/front: is missing.*reads observation/front"),
        ({"observation__front": IMAGE.astype(np.float32)}, r"observation/front: .*uint8.*is float32 of shape"),
        ({"observation__front": IMAGE[..., 0]}, r"observation/front: .*\(24, 24\)"),
        ({"observation__front": IMAGE.transpose(0, 2, 1)}, r"observation/front: .*\(24, 3, 24\)"),
        ({"observation__front": IMAGE.transpose(2, 0, 1).astype(float)}, r"observation/front: .*\(3, 24, 24\)"),
        ({"observation__front": np.zeros((3, 4097, 1), np.uint8)}, "at most 4096"),
        ({"observation__front": np.zeros((3, 4, 0), np.uint8)}, "observation/front"),
        ({"observation__front": np.zeros((0, 5, 3), np.uint8)}, "observation/front"),
        ({"observation__front": np.zeros((4097, 1, 3), np.uint8)}, "at most 4096"),
        ({"observation__front": "a picture"}, "observation/front: .*a str of 9"),
        ({"observation__back": IMAGE}, "observation/back: no such camera"),
        ({"images": {"front": IMAGE}}, "observation/front: came twice"),
        ({"images": [IMAGE]}, "images: a map"),
        ({"observation__state": ...}, "observation/state: is missing"),
        ({"state": np.zeros(2)}, "observation/state: came twice"),
        (
            {"observation__state": np.zeros(3)},
            r"observation/state: must be 2 numbers \(x, y\), is float64 of shape \(3,\)",
        ),
        ({"observation__state": np.zeros((1, 2))}, r"observation/state: .*\(1, 2\)"),
        ({"observation__state": [0.0, np.nan]}, "observation/state: y is nan"),
        ({"observation__state": [10**400, 0.0]}, "observation/state: x is inf"),
        ({"observation__state": np.array([0, 1e300])}, "observation/state: y is inf"),
        ({"observation__state": ["0", 0]}, "observation/state"),
        ({"observation__state": [True, 0]}, "observation/state"),
        ({"prompt": ...}, "prompt: must be text.*is nothing"),
        ({"prompt": " "}, "prompt: must be text"),
        ({"prompt": 3}, "prompt: must be text.*is 3"),
        ({"prompt": "x" * 5000}, "prompt: .*4096"),
        ({"step": -1}, "step: must be a whole number"),
        ({"step": 1.0}, "step: "),
        ({"step": True}, "step: "),
        ({"time_s": float("nan")}, "time_s: must be seconds"),
        ({"time_s": "now"}, "time_s: "),
        ({"sent_s": float("inf")}, "sent_s: "),
        ({"committed": 2**40}, "committed: "),
        ({"seed": -5}, "seed: "),
        ({"commited": 3}, "commited: an unknown field"),
        ({"evil\nname\x1b[0m": 3}, r"evil\?name\?\[0m: an unknown field"),
        ({"reset": 1}, "reset: must be true"),
        ({"reset": True}, "an unknown field"),
    ],
)
def test_a_wrong_field_is_told_by_name(changes: dict[str, Any], says: str):
    with pytest.raises(RequestError, match=says):
        READER.read(message(**changes))
