"""GEM plans, a policy acts, GEM judges: in a world of two lamps, and in Meta-World with its expert."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.recipes import plan_run
from gemvlm.recipes.plan_act import ExpertPolicy, PlanSettings, plan_and_act
from gemvlm.robot import ActionChunk, ActionContract, RobotObservation
from gemvlm.worlds.open_world import WorldMaker

CONTRACT = ActionContract("lamps", ("first", "second"), ("push",), "delta", "none", "none", 10.0, ("eye",))


class Lamps:
    """Two lamps that burn once they were pushed often enough: an action of 1 pushes the first, of 2 the second."""

    name, instruction, contract, horizon = "lamps", "light both lamps", CONTRACT, 60
    test_starts, demonstration_starts = range(10), range(10, 20)
    protocol: Mapping[str, str] = {}

    def reset(self, start: int) -> RobotObservation:
        self.pushed = np.zeros(2)
        return self._seen()

    def step(self, action: np.ndarray) -> tuple[RobotObservation, bool]:
        self.pushed[int(action[0]) - 1] += 1
        return self._seen(), self.succeeded()

    def succeeded(self) -> bool:
        return bool((self.pushed >= 5).all())

    def depths(self) -> dict[str, Any]:
        return {}

    def expert_action(self) -> None:
        return None

    def close(self) -> None: ...

    def _seen(self) -> RobotObservation:
        picture = np.zeros((8, 8, 3), np.uint8)
        picture[0, :2, 0] = np.minimum(self.pushed, 255)
        return RobotObservation({"eye": picture}, self.pushed.astype(np.float32), self.instruction)


class Obedient:
    """Pushes the lamp that it is told; told of both, it always pushes the first."""

    contract, horizon = CONTRACT, 4

    def __init__(self) -> None:
        self.told: list[str] = []

    def act(
        self, observations: Sequence[RobotObservation], seeds: Sequence[int], committed: Any = None
    ) -> list[ActionChunk]:
        self.told += [seen.instruction for seen in observations]
        pushes = [2.0 if "second" in seen.instruction else 1.0 for seen in observations]
        return [ActionChunk(np.full((4, 1), push, np.float32), 10.0) for push in pushes]


@dataclass
class Answered:
    text: str


@dataclass
class Planner:
    """Looks at the picture: which lamp is dark is the next step."""

    stubborn: str | None = None
    asked: list[str] = field(default_factory=list)

    def ask(self, images: Any, question: str) -> Answered:
        self.asked.append(question)
        burns = images[0][0, :2, 0] >= 5
        if self.stubborn is not None:
            return Answered(self.stubborn)
        if "steps remain" in question:
            dark = [name for name, burning in zip(("first", "second"), burns, strict=True) if not burning]
            return Answered(f"Light the {dark[0]} lamp." if dark else "Done.")
        return Answered("Yes." if burns[int("second" in question)] else "No, not yet.")


SETTINGS = PlanSettings(executed=2, judged_every=3, tries=3, steps=6)


def test_with_a_plan_both_lamps_burn_without_one_does() -> None:
    world, policy = Lamps(), Obedient()
    planned = plan_and_act(world, 0, policy, Planner(), SETTINGS)
    assert planned.success and planned.plan == ("Light the first lamp", "Light the second lamp")
    assert planned.actions == 11  # judged after 6 pushes of the first, and over with the fifth of the second
    assert [line.words for line in planned.lines if line.kind == "judge"] == ["no", "yes", "no"]
    alone = plan_and_act(world, 0, Obedient(), None, SETTINGS)
    assert not alone.success and alone.actions == world.horizon


def test_the_policy_is_told_the_step_or_the_task() -> None:
    policy = Obedient()
    plan_and_act(Lamps(), 0, policy, Planner(), SETTINGS)
    assert set(policy.told) == {"Light the first lamp", "Light the second lamp"}
    policy = Obedient()
    plan_and_act(Lamps(), 0, policy, Planner(), replace(SETTINGS, words="task"))
    assert set(policy.told) == {"light both lamps"}


def test_gem_is_asked_in_the_words_that_it_was_taught_with() -> None:
    planner = Planner()
    plan_and_act(Lamps(), 0, Obedient(), planner, SETTINGS)
    plan, judge = (
        "The task is: light both lamps. Which steps remain after what the image shows, in order?",
        "Has it been",
    )
    assert planner.asked[0] == plan and {q for q in planner.asked if judge not in q} == {plan}
    assert planner.asked[1] == "The step is: Light the first lamp. Has it been done in the image?"


def test_of_several_steps_the_first_is_told() -> None:
    policy = Obedient()
    plan_and_act(Lamps(), 0, policy, Planner(stubborn="light the second lamp, then rest."), replace(SETTINGS, steps=1))
    assert set(policy.told) == {"light the second lamp"}


def test_more_actions_than_a_chunk_has_are_refused() -> None:
    with pytest.raises(ValueError, match="9 actions of a chunk, but the policy's have 4; execute fewer"):
        plan_and_act(Lamps(), 0, Obedient(), None, replace(SETTINGS, executed=9))


@pytest.mark.parametrize("answer", ["", "no", "I will " * 100])
def test_a_planner_that_says_nothing_of_use_ends_within_bounds(answer: str) -> None:
    """Never done by its own word: the number of steps and tries bounds it, and the robot is told the task instead of
    nothing, or of a page of words."""
    policy, planner = Obedient(), Planner(stubborn=answer)
    found = plan_and_act(Lamps(), 0, policy, planner, replace(SETTINGS, steps=2, tries=2))
    assert not found.success and found.actions == 2 * 2 * 3
    assert set(policy.told) == {"light both lamps"}


def test_gem_that_calls_everything_done_does_not_make_it_succeed() -> None:
    found = plan_and_act(Lamps(), 0, Obedient(), Planner(stubborn="Yes"), replace(SETTINGS, steps=2))
    assert not found.success and found.lines[-1].words == "no step is left to take"


def test_the_transcript_is_kept() -> None:
    found = plan_and_act(Lamps(), 0, Obedient(), Planner(), SETTINGS)
    kept = json.loads(found.to_json())
    assert kept["success"] is True and [line["kind"] for line in kept["lines"][:3]] == ["plan", "act", "judge"]
    assert str(found).splitlines()[0] == "light both lamps: succeeded after 11 actions"
    assert "judge  yes" in str(found)


def test_the_same_seed_is_the_same_transcript() -> None:
    one, other = (plan_and_act(Lamps(), 0, Obedient(), Planner(), SETTINGS, seed=3) for _ in range(2))
    assert one == other


def test_the_same_starts_with_a_plan_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(*_: object) -> Iterator[tuple[Lamps, Obedient, Planner, PlanSettings]]:
        yield Lamps(), Obedient(), Planner(), SETTINGS

    monkeypatch.setattr(plan_run, "_opened", opened)
    maker = WorldMaker()
    found = plan_run.run_trials("policy", maker, "lamps", tmp_path, SETTINGS, "nano", trials=3, start=0)
    alone = [plan_and_act(Lamps(), number, Obedient(), None, SETTINGS).success for number in range(3)]
    assert found.planned == (True,) * 3 and found.alone == tuple(alone)
    assert str(found).splitlines()[0].startswith("GEM plans       100.0 %")
    assert sorted(path.name for path in tmp_path.iterdir())[0] == "alone-0.json"
    with pytest.raises(ValueError, match="at least two"):
        plan_run.run_trials("policy", maker, "lamps", tmp_path, SETTINGS, "nano", trials=1)


def test_a_policy_of_another_robot_is_refused() -> None:
    policy = Obedient()
    policy.contract = replace(CONTRACT, rate_hz=20.0)  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"rate_hz: 20\.0 here, 10\.0 there"):
        plan_and_act(Lamps(), 0, policy, None, SETTINGS)


def test_no_expert_is_said() -> None:
    with pytest.raises(ValueError, match="has no scripted expert"):
        plan_and_act(Lamps(), 0, ExpertPolicy(Lamps()), None, replace(SETTINGS, executed=None))


@pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None, reason="needs metaworld: pip install 'gemvlm[worlds]'"
)
def test_in_meta_world_with_its_expert() -> None:
    """The world's own rule decides; GEM here always says that it is not done yet."""
    from gemvlm.worlds.metaworld.robot import MetaWorldRobot

    world = MetaWorldRobot("reach-v3", 32, "plain")
    settings = PlanSettings(executed=1, judged_every=30, tries=5, steps=3)
    found = plan_and_act(world, 100, ExpertPolicy(world), Planner(stubborn="no"), settings)
    assert found.success and found.actions < 150 and found.plan == (world.instruction,)
    world.close()
