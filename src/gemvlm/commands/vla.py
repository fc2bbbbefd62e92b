"""Commands of robots, each as `gemvlm vla NAME`. Here record, train and distill: from episodes to a policy.

What plays one is in `vla_play`, what lets it near a robot in `vla_robot`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from gemvlm.commands import Device

Recipe = Annotated[Positional[str], arg(metavar="RECIPE")]
Policy = Annotated[Positional[str], arg(metavar="POLICY")]
World = Annotated[Positional[str], arg(metavar="WORLD")]
Worlds = Annotated[Positional[tuple[str, ...]], arg(metavar="WORLD...")]
Episodes = Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="DIR")]
Cameras = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=NAME_IN_EPISODES")]
Drawing = Literal["opengl", "plain"]

HELP = """\
gemvlm vla: robots that act

usage: gemvlm vla COMMAND ...        gemvlm vla COMMAND --help tells the options of a command

  record WORLD... --out DIR      demonstrations of a world's expert as LeRobot episodes, with depth
  train RECIPE --data DIR        train a policy on episodes, or go on with it; --plan tells what it takes
  evaluate POLICY WORLD...       closed loop beside blind policies: success with intervals, videos
  run POLICY WORLD               one episode, filmed; --plan lets GEM propose the steps and judge them
  distill POLICY --data DIR      a policy that answers in one step
  serve POLICY                   answer a robot over a websocket, in openpi's protocol
  trial DIR                      a blind comparison of two policies at a real robot: sheet, stop rule, report

WORLD is metaworld/TASK, libero/SUITE[/INDEX] or bimanual/TASK; POLICY a folder that `gemvlm vla train` wrote.

  gemvlm vla record metaworld/reach-v3 --demonstrations 25 --out sets/reach
  gemvlm vla train vla_nano --data sets/reach --out out/reach
  gemvlm vla evaluate out/reach/final metaworld/reach-v3 --blind sets/reach --out out/reach/scores
"""


def record(
    worlds: Worlds,
    *,
    out: Path,
    demonstrations: int = 25,
    noise: float = 0.0,
    seed: int = 0,
    depth: bool = True,
    size: int = 96,
    drawing: Drawing = "opengl",
    assets: Annotated[Path | None, arg(metavar="DIR")] = None,
    turn: bool = False,
    processes: int = 1,
) -> None:
    """Record demonstrations of each world's scripted expert into a new LeRobot folder; broken off, it goes on.

    Args:
        worlds: metaworld/TASK, libero/SUITE/INDEX or bimanual/TASK.
        out: New folder.
        demonstrations: Of each task.
        noise: Spread of what is added to the expert's actions, so that mistakes and their cure are seen.
        seed: Of the noise; it shifts the starts as well.
        depth: Record the depth behind each picture.
        size: Height and width of the pictures.
        drawing: opengl draws as the simulator does; plain needs no graphics library.
        assets: Folder of LIBERO's meshes and textures.
        turn: Show LIBERO's pictures as published data do: robosuite's turned by 180 degrees, so mirrored.
        processes: Worlds that are played at once.
    """
    from gemvlm.recipes.record_worlds import Recording, record_worlds
    from gemvlm.worlds.open_world import WorldMaker

    if size < 2 or size % 2:
        raise ValueError(f"--size {size}: videos hold pictures of an even number of pixels a side; give one")
    recording = Recording(worlds, demonstrations, noise=noise, seed=seed, depth=depth)
    found = record_worlds(out, WorldMaker(size, drawing, assets, turn), recording, processes)
    print(f"{found.path}: {found.episodes} episodes, {found.steps} actions")
    for world, failures in found.failures.items():
        if failures:
            print(f"{world}: its expert failed {failures} starts, which are left out")


def train(
    recipe: Recipe,
    *,
    data: Episodes = (),
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    resume: bool = False,
    start: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="[PART=]PLACE")] = (),
    text: Annotated[Path | None, arg(metavar="DIR")] = None,
    action_statistics: Annotated[Path | None, arg(metavar="FILE")] = None,
    embodiment: str | None = None,
    control: Literal["absolute", "delta"] | None = None,
    camera: Cameras = (),
    rate_hz: float | None = None,
    sharding: Literal["shard", "hybrid", "replicate"] = "shard",
    workers: int = 0,
    minutes: float | None = None,
    track: Annotated[UseAppendAction[tuple[Literal["wandb", "trackio"], ...]], arg(metavar="{wandb,trackio}")] = (),
    device: Device = None,
    plan: bool = False,
    gpu: Annotated[str | None, arg(metavar="NAME")] = None,
    gpus: int = 1,
) -> None:
    """Train a policy on episodes of one robot; the finished policy lies in OUT/final.

    Args:
        recipe: vla_nano, vla_2b and their variants; an unknown name lists them.
        data: A folder of episodes: LeRobot 2.x or 3.0, the released GEM-VLA code's HDF5 files, or RDT2's shards (see
            docs/robots.md); may be given several times.
        out: Folder of the run.
        resume: Go on with the run that is in the folder.
        start: Weights to begin with, as a folder, a hub id or a shipped name: a GEM or a policy; qwen=PLACE and
            sana=PLACE for published parts; besides either expert=PLACE for an action expert by the authors' names,
            which then sees the state as it is, not normalised.
        text: A set of `gemvlm curate`, for recipes that go on answering questions.
        action_statistics: JSON by which a published expert's actions are normalised (the authors' action_stats.json,
            or scale and offset); by default the episodes' own.
        embodiment: The robot, if not the recipe's: metaworld, libero, libero_turned, bimanual, bimanual_relative,
            bridge, joint_arm, rdt2, or plain, which takes the episodes' numbers as they are.
        control: For plain: whether an action is where to be (absolute) or how far to move (delta).
        camera: A camera of the policy and its name in the episodes; may be given several times.
        rate_hz: Actions a second, where the episodes' files don't say what is true.
        sharding: How several processes hold the weights: a share each, a share each within a machine, or all of them.
        workers: Processes that prepare batches ahead, for each training process.
        minutes: Stop after so long, to be gone on with by --resume.
        track: Send the numbers of the log there as well.
        device: cpu, cuda or mps; the best there is by default.
        plan: Show parameters, operations, memory and time, and load and train nothing.
        gpu: The plan is for GPUs of this name; all that are known by default.
        gpus: The plan is for so many of them.
    """
    from gemvlm.recipes import get_policy
    from gemvlm.training.parallel import Sharding

    chosen = get_policy(recipe)
    if plan:
        from rich.console import Console

        from gemvlm.recipes.plan import show_plan

        show_plan(chosen, Console(), gpu, gpus, Sharding(sharding))
        return
    if out is None or not data:
        raise ValueError(f"vla train {recipe}: add --data EPISODES and --out DIR, the folder of the run, or --plan")
    if not resume and any(out.glob("step-*")):
        raise ValueError(f"{out}: holds a run already; add --resume to go on with it, or choose another folder")
    from gemvlm.recipes.vla_episodes import Robot
    from gemvlm.recipes.vla_run import train_policy
    from gemvlm.runtime import get_log
    from gemvlm.training.loop import Run

    robot = Robot.of_options(embodiment or chosen.embodiment, data[0], control, camera, rate_hz)
    run = Run(out, minutes=minutes, trackers=track)
    if not train_policy(
        chosen, out, data, robot=robot, text=text, action_statistics=action_statistics, device=device, run=run,
        start=start, sharding=Sharding(sharding), workers=workers,
    ):  # fmt: skip
        get_log().info("%s: not finished; the same command with --resume goes on", out)


def distill(
    policy: Policy,
    *,
    data: Episodes,
    out: Path,
    method: Literal["regression", "distribution_matching"] = "regression",
    steps: int = 2000,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    camera: Cameras = (),
    device: Device = None,
) -> None:
    """Teach a copy of a policy to answer in one step; the new policy lies in OUT/final.

    Args:
        policy: A policy's folder.
        data: The episodes that it was trained on; may be given several times.
        out: New folder.
        method: regression to the end of the policy's own path, or true distribution matching.
        steps: Updates of the student.
        batch_size: Moments in each.
        learning_rate: Of the student.
        camera: A camera of the policy and its name in the episodes; may be given several times.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.inference.policy import policy_folder
    from gemvlm.recipes.vla_distill import distil_policy
    from gemvlm.recipes.vla_episodes import camera_names
    from gemvlm.training.distillation import DistillationConfig

    config = DistillationConfig(method, steps, learning_rate)
    names = camera_names(camera)
    folder = policy_folder(policy)
    print(distil_policy(folder, data, out, config, camera_names=names, batch_size=batch_size, device=device))
