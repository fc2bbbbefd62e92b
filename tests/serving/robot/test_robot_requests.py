"""Requests are read in both of openpi's layouts, and every wrong field is told by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from servo_policy import CONTRACT, picture

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
        ({"observation__front": IMAGE.transpose(2, 0, 1)}, r"observation/front: .*\(3, 24, 24\)"),
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
