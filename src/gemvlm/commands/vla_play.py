"""Commands of robots that play in simulated worlds: `gemvlm vla evaluate`, `gemvlm vla run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from gemvlm.commands import Device, Scheme
from gemvlm.commands.vla import Drawing, Episodes, Policy, World, Worlds


def evaluate(
    policy: Policy,
    worlds: Worlds,
    *,
    out: Path,
    trials: int = 50,
    first: int | None = None,
    execute: int | None = None,
    delay: int = 0,
    blind: Episodes = (),
    videos: int = 1,
    lanes: int = 8,
    workers: int = 0,
    size: int | None = None,
    drawing: Drawing = "opengl",
    assets: Annotated[Path | None, arg(metavar="DIR")] = None,
    turn: bool = False,
    device: Device = None,
    quantised: Scheme = None,
) -> None:
    """Play a policy in simulated worlds from states it has never seen, and write one report; killed, it goes on.

    Args:
        policy: A policy's folder, or "expert": the worlds' own scripted one; with --blind a task's ceiling and floor.
        worlds: metaworld/TASK, libero/SUITE (all its tasks), libero/SUITE/INDEX or bimanual/TASK.
        out: Folder of the results.
        trials: Starts of each task.
        first: The first of them; the first for tests by default.
        execute: Actions of each chunk that are carried out; as many as the policy was trained for by default.
        delay: Actions by which a chunk arrives late, as at a real robot.
        blind: Demonstrations: blind policies made of them are played beside it. May be given several times.
        videos: Starts of each task that are filmed.
        lanes: Episodes that are played together.
        workers: Processes that hold the worlds.
        size: Height and width of the pictures; by default, and at all for a policy, what it learned from.
        drawing: opengl draws as the simulator does; plain needs no graphics library.
        assets: Folder of LIBERO's meshes and textures.
        turn: Show LIBERO's pictures as published data do: robosuite's turned by 180 degrees, so mirrored.
        device: cpu, cuda or mps; the best there is by default.
        quantised: int8, int8_dynamic or int4: smaller weights, on a CPU; see docs/faster.md for what they bring.
    """
    from gemvlm.recipes.vla_evaluate import Scored, evaluate_policy
    from gemvlm.worlds.open_world import WorldMaker

    scored = Scored(worlds, trials, first, execute, delay)
    make = WorldMaker(drawing=drawing, assets=assets, turn=turn)
    report = evaluate_policy(
        policy,
        scored,
        make,
        out,
        size=size,
        blind=blind,
        lanes=lanes,
        workers=workers,
        videos=videos,
        device=device,
        quantised=quantised,
    )
    print(report)


def run(
    policy: Policy,
    world: World,
    *,
    out: Path,
    start: int | None = None,
    plan: bool = False,
    trials: int = 1,
    gem: str = "nano",
    words: Literal["step", "task"] = "step",
    judged_every: int = 40,
    tries: int = 3,
    steps: int = 10,
    execute: int | None = None,
    seed: int = 0,
    size: int | None = None,
    drawing: Drawing = "opengl",
    assets: Annotated[Path | None, arg(metavar="DIR")] = None,
    turn: bool = False,
    device: Device = None,
) -> None:
    """Play one episode and film it; with --plan GEM proposes the steps of the task and judges whether each is done.

    With --trials as well, the same starts are played with and without it.

    Args:
        policy: A policy's folder, or "expert": the world's own scripted one.
        world: metaworld/TASK, libero/SUITE/INDEX or bimanual/TASK.
        out: Folder for the film and the transcript.
        start: Number of the start; the first for tests by default.
        plan: Let GEM plan and judge.
        trials: With --plan, play so many starts with and without it and compare; not filmed.
        gem: The GEM that does: a checkpoint folder, or the name of a shipped model.
        words: What the policy is told: GEM's step, or always the task.
        judged_every: Actions between two judgements.
        tries: Judgements of "no" before GEM plans anew.
        steps: Steps that GEM may propose.
        execute: Actions of each chunk that are carried out; as many as the policy was trained for by default.
        seed: Of the policy's noise.
        size: Height and width of the pictures; by default, and at all for a policy, what it learned from.
        drawing: opengl draws as the simulator does; plain needs no graphics library.
        assets: Folder of LIBERO's meshes and textures.
        turn: Show LIBERO's pictures as published data do: robosuite's turned by 180 degrees, so mirrored.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.recipes.plan_act import PlanSettings
    from gemvlm.recipes.plan_run import run_episode, run_trials
    from gemvlm.worlds.open_world import WorldMaker

    settings = PlanSettings(execute, judged_every, tries, steps, words)
    make = WorldMaker(drawing=drawing, assets=assets, turn=turn)
    if trials > 1:
        if not plan:
            raise ValueError(
                "--trials compares episodes with a plan and without: add --plan, or see `gemvlm vla evaluate`"
            )
        print(run_trials(policy, make, world, out, settings, gem, trials, start, seed, device, size))
        return
    print(run_episode(policy, make, world, out, settings, gem if plan else None, start, seed, device, size))
