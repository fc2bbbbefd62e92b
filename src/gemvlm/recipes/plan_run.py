"""`gemvlm vla run`: one episode, filmed, or the same starts with a plan and without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gemvlm.evaluation.rollout.video import VideoFile, video_suffix
from gemvlm.recipes.data import progress
from gemvlm.recipes.plan_act import ExpertPolicy, Planner, PlanSettings, Transcript, plan_and_act
from gemvlm.robot import Policy
from gemvlm.statistics import paired_difference, proportion_interval
from gemvlm.worlds.open_world import WorldMaker
from gemvlm.worlds.robot_world import RobotWorld


def run_episode(
    path: str,
    make: WorldMaker,
    name: str,
    out: Path,
    settings: PlanSettings,
    gem: str | None,
    start: int | None = None,
    seed: int = 0,
    device: str | None = None,
    size: int | None = None,
) -> Transcript:
    """`gemvlm vla run`: one episode of a policy's folder, or of "expert", filmed beside its transcript in `out`.

    Pictures have `size` pixels a side, by default what the policy learned from; ValueError if that is not the same.
    """
    with _opened(path, make, name, settings, gem, device, size) as (world, policy, planner, settings):
        number = world.test_starts.start if start is None else start
        film = VideoFile(out / f"episode{video_suffix()}", name, world.horizon, world.contract.rate_hz)
        found = plan_and_act(world, number, policy, planner, settings, seed, film.add)
        film.close(found.success, found.actions if found.success else None)
        (out / "transcript.json").write_text(found.to_json(), encoding="utf-8")
        return found


@dataclass(frozen=True)
class WithAndWithout:
    """The same starts with GEM planning and without: whether each succeeded."""

    planned: tuple[bool, ...]
    alone: tuple[bool, ...]

    def __str__(self) -> str:
        count = len(self.planned)
        rates = [proportion_interval(sum(each), count) for each in (self.planned, self.alone)]
        gap = paired_difference(np.array(self.planned, float), np.array(self.alone, float))
        lines = [
            f"{name:15} {100 * rate.mean:5.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {count} starts"
            for name, rate in zip(("GEM plans", "policy alone"), rates, strict=True)
        ]
        interval = gap.interval
        points = f"{100 * interval.mean:+.1f} points [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
        return "\n".join([*lines, f"{'difference':15} {points}, p = {gap.p_value:.3f}"])


def run_trials(
    path: str,
    make: WorldMaker,
    name: str,
    out: Path,
    settings: PlanSettings,
    gem: str,
    trials: int,
    start: int | None = None,
    seed: int = 0,
    device: str | None = None,
    size: int | None = None,
) -> WithAndWithout:
    """`gemvlm vla run --plan --trials N`: N starts, each with GEM planning and without; all transcripts go to `out`.

    Without GEM the same policy acts on the task's own words for as long. ValueError for fewer than two trials.
    """
    if trials < 2:
        raise ValueError(f"{trials} trials: give at least two, from which something can be said")
    out.mkdir(parents=True, exist_ok=True)
    with _opened(path, make, name, settings, gem, device, size) as (world, policy, planner, settings):
        first = world.test_starts.start if start is None else start
        ended: dict[str, list[bool]] = {"planned": [], "alone": []}
        for number in progress(range(first, first + trials), trials, "playing"):
            for kind, its_planner in (("planned", planner), ("alone", None)):
                found = plan_and_act(world, number, policy, its_planner, settings, seed)
                (out / f"{kind}-{number}.json").write_text(found.to_json(), encoding="utf-8")
                ended[kind].append(found.success)
    return WithAndWithout(tuple(ended["planned"]), tuple(ended["alone"]))


@contextmanager
def _opened(
    path: str,
    make: WorldMaker,
    name: str,
    settings: PlanSettings,
    gem: str | None,
    device: str | None,
    size: int | None,
) -> Iterator[tuple[RobotWorld, Policy, Planner | None, PlanSettings]]:
    """The world, who acts, who plans, and the settings with as many actions of a chunk as the policy was made for."""
    from gemvlm.inference import load
    from gemvlm.inference.policy import load_policy

    trained = None if path == "expert" else load_policy(path, device)
    if trained is not None:
        settings = replace(settings, executed=settings.executed or trained.executed)
    wanted = size or make.size if trained is None else trained.size_for(size, make.size)
    world = replace(make, size=wanted)(name)
    try:
        policy: Policy = ExpertPolicy(world) if trained is None else trained
        yield world, policy, None if gem is None else load(gem, device), settings
    finally:
        world.close()
