"""`gemvlm vla`: thin functions that say what is wrong before anything is loaded."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robot_episodes import CONTRACT, robot_episode, write_episodes

from gemvlm.__main__ import VLA, command
from gemvlm.commands import vla, vla_robot
from gemvlm.evaluation.blind_policies import BLIND
from gemvlm.inference.policy import load_policy
from gemvlm.inference.quantise import Scheme
from gemvlm.recipes import get_policy, vla_distill, vla_episodes
from gemvlm.recipes.record_worlds import Recording, record_worlds
from gemvlm.recipes.vla_debug import EXPERT, VLA_DEBUG
from gemvlm.recipes.vla_episodes import Robot, camera_names
from gemvlm.recipes.vla_evaluate import Scored, about_policy, evaluate_policy, players
from gemvlm.recipes.vla_run import train_policy
from gemvlm.robot import ActionContract
from gemvlm.training.distillation import DistillationConfig
from gemvlm.training.loop import Run
from gemvlm.worlds.bimanual.world import HORIZON
from gemvlm.worlds.open_world import WorldMaker

COMMANDS = ("record", "train", "evaluate", "run", "distill", "serve", "trial")


def none() -> ActionContract:
    raise AssertionError("no world need be opened")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_told(name: str) -> None:
    function = command(f"{VLA} {name}")
    for option in inspect.signature(function).parameters:
        assert f"        {option}: " in (function.__doc__ or ""), f"{name}: {option}"
    assert f"  {name} " in vla.HELP


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"there are vla_2b, vla_2b_depth, .*vla_nano"):
        vla.train("vla_3b")


def test_training_needs_episodes_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="add --data EPISODES and --out DIR"):
        vla.train("vla_debug", out=tmp_path)


def test_plan_loads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    vla.train("vla_nano", plan=True, gpu="a100-80gb")
    told = capsys.readouterr().out
    assert "expert" in told and "from each camera" in told


def test_robots_by_option(tmp_path: Path) -> None:
    assert camera_names(["right=top"]) == {"right": "top"}
    with pytest.raises(ValueError, match="write NAME=OTHER_NAME"):
        camera_names(["right"])
    with pytest.raises(ValueError, match="add --control absolute"):
        Robot.of_options("plain", tmp_path, None, (), None)
    with pytest.raises(ValueError, match="says itself"):
        Robot.of_options("metaworld", tmp_path, "delta", (), None)
    robot = Robot.of_options("metaworld", tmp_path, None, ("right=top",), 20.0)
    assert robot.contract.cameras == ("right",) and robot.contract.rate_hz == 20
    assert robot.camera_names == {"right": "top"}


def test_a_plain_robot_is_what_its_folder_says(tmp_path: Path) -> None:
    folder = write_episodes(tmp_path / "set", 2)
    robot = Robot.of_options("plain", folder, "delta", (), None)
    assert robot.contract.state_names == CONTRACT.state_names and robot.contract.rate_hz == CONTRACT.rate_hz
    assert set(robot.contract.cameras) == set(CONTRACT.cameras) and robot.embodiment.action_size == 4


def test_no_camera_of_a_plain_robot_is_lost(tmp_path: Path) -> None:
    names = dict(zip(CONTRACT.cameras, ("left.rgb", "right.rgb"), strict=True))
    one = robot_episode(0)
    cameras = {names[camera]: info for camera, info in one.cameras.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vla_episodes, "open_episodes", lambda _: [replace(one, cameras=cameras)])
        with pytest.raises(ValueError, match="have the same last name; name each with --camera"):
            Robot.plain(tmp_path, "delta")
        assert Robot.plain(tmp_path, "delta", names).contract.cameras == CONTRACT.cameras


def test_worlds_become_protocols() -> None:
    metaworld = Scored(("metaworld/reach-v3", "metaworld/door-open-v3"), 5, delay=2).protocol(8, turned=False)
    assert [task.name for task in metaworld.tasks] == ["metaworld/reach-v3", "metaworld/door-open-v3"]
    assert (metaworld.starts, metaworld.execute, metaworld.delay) == (tuple(range(100, 105)), 8, 2)
    libero = Scored(("libero/libero_object", "libero/libero_goal/3"), 2).protocol(4, turned=True)
    assert len(libero.tasks) == 11 and libero.tasks[-1].name == "libero/libero_goal/3" and libero.tasks[-1].steps == 300
    assert libero.image_turn == "half"
    bimanual = Scored(("bimanual/hand-over",), 2).protocol(8, turned=False)
    assert bimanual.tasks[0].steps == HORIZON
    with pytest.raises(ValueError, match="one simulator at a time"):
        Scored(("libero/libero_goal", "metaworld/reach-v3"), 2).protocol(4, turned=False)


def test_recipes_differ_where_they_say() -> None:
    joint, alone, frozen, text = (get_policy(f"vla_nano{end}") for end in ("", "_action", "_expert", "_text"))
    assert joint.paints and not alone.paints and frozen.backbone_gradient == 0 and text.text_share > 0
    assert set(frozen.stages[0].learning_rates) == {"expert"}
    with pytest.raises(ValueError, match="give both or neither"):
        replace(text, text_share=0.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy that is barely trained, and its episodes."""
    folder = tmp_path_factory.mktemp("small")
    episodes = write_episodes(folder / "set", 4)
    recipe = replace(VLA_DEBUG, stages=(replace(EXPERT, steps=2, batch_size=2),))
    assert train_policy(recipe, folder / "run", [episodes], device="cpu", run=Run(folder / "run", show_progress=False))
    return folder / "run" / "final", episodes


def test_a_distilled_policy_is_a_whole_one_of_one_step(small: tuple[Path, Path], tmp_path: Path) -> None:
    path, episodes = small
    config = DistillationConfig("regression", steps=2, learning_rate=1e-3)
    made = vla_distill.distil_policy(path, [episodes], tmp_path, config, batch_size=2, device="cpu")
    student, teacher = load_policy(made, "cpu"), load_policy(path, "cpu")
    assert (student.card.flow_steps, student.card.contract) == (1, teacher.card.contract)
    assert student.card.stage == "distilled by regression"
    ours, theirs = (dict(p.model.named_parameters()) for p in (student, teacher))
    assert all(np.array_equal(ours[n].detach(), theirs[n].detach()) for n in ours if not n.startswith("expert."))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert "loss/student" in json.loads(lines[-1])
    assert json.loads(json.dumps(student.card.scores))["distilled"]["teacher_steps"] == teacher.card.flow_steps
    with pytest.raises(ValueError, match="holds a policy already"):
        vla_distill.distil_policy(path, [episodes], tmp_path, config)
    with pytest.raises(ValueError, match="answers in one step already"):
        vla_distill.distil_policy(made, [episodes], tmp_path / "again", config)
    told = [about_policy(one.card, folder) for one, folder in ((student, made), (teacher, path))]
    assert told[0]["weights"] != told[1]["weights"] and told[0] == about_policy(student.card, made)


@pytest.mark.parametrize("scheme", ["int8", "int8_dynamic", "int4"])
def test_a_quantised_policy_is_another_player(small: tuple[Path, Path], scheme: Scheme) -> None:
    exact, smaller = players(str(small[0]), (), "cpu", None, none), players(str(small[0]), (), "cpu", scheme, none)
    assert smaller[0].name == f"{exact[0].name}-{scheme}"
    assert smaller[0].about == exact[0].about | {"quantised": scheme}
    kinds = [{type(m) for m in one[0].policy.model.modules()} for one in (exact, smaller)]
    assert kinds[1] - kinds[0], "no layer was made smaller"
    with pytest.raises(ValueError, match="the scripted expert has no weights"):
        players("expert", (), "cpu", scheme, none)


def test_blind_players_stand_beside_the_expert(tmp_path: Path) -> None:
    pytest.importorskip("metaworld")
    make = WorldMaker(size=32, drawing="plain")
    record_worlds(tmp_path / "set", make, Recording(("metaworld/reach-v3",), 2, depth=False))
    scored = Scored(("metaworld/reach-v3",), 1)
    report = evaluate_policy("expert", scored, make, tmp_path / "scores", blind=[tmp_path / "set"], videos=0)
    assert all(name in report for name in ("expert", *BLIND))
    assert sorted(p.name for p in (tmp_path / "scores").iterdir() if p.is_dir()) == sorted(
        name.replace(" ", "-") for name in ("expert", *BLIND)
    )


def test_a_trial_goes_through_its_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vla_robot.trial(tmp_path, policies=("a", "b"), tasks=("stack",), pairs=2)
    vla_robot.trial(tmp_path)
    assert "0 of 2 pairs" in capsys.readouterr().out
    vla_robot.trial(tmp_path, whose=1)
    assert capsys.readouterr().out.strip() in ("a", "b")
