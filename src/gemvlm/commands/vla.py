"""Commands of robots, each as `gemvlm vla NAME`: record, train, evaluate, run, distill, serve, trial."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from gemvlm.commands import Device, Folder

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
        turn: Turn LIBERO's pictures by 180 degrees, as published data are.
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
    """Train a policy on LeRobot episodes of one robot; the finished policy lies in OUT/final.

    Args:
        recipe: vla_nano, vla_2b and their variants; an unknown name lists them.
        data: A LeRobot folder; may be given several times.
        out: Folder of the run.
        resume: Go on with the run that is in the folder.
        start: Weights to begin with, as a folder, a hub id or a shipped name: a GEM or a policy; qwen=PLACE and
            sana=PLACE for published parts.
        text: A set of `gemvlm curate`, for recipes that go on answering questions.
        embodiment: The robot, if not the recipe's: metaworld, libero, libero_turned, bimanual, bimanual_relative,
            joint_arm, or plain, which takes the episodes' numbers as they are.
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
        chosen, out, data, robot=robot, text=text, device=device, run=run, start=start, sharding=Sharding(sharding),
        workers=workers,
    ):  # fmt: skip
        get_log().info("%s: not finished; the same command with --resume goes on", out)


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
) -> None:
    """Play a policy in simulated worlds from states it has never seen, and write one report; killed, it goes on.

    Args:
        policy: A policy's folder, or "expert": the worlds' own scripted one.
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
        turn: Turn LIBERO's pictures by 180 degrees, as published data are.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.recipes.vla_evaluate import Scored, evaluate_policy
    from gemvlm.worlds.open_world import WorldMaker

    scored = Scored(worlds, trials, first, execute, delay)
    make = WorldMaker(drawing=drawing, assets=assets, turn=turn)
    report = evaluate_policy(
        policy, scored, make, out, size=size, blind=blind, lanes=lanes, workers=workers, videos=videos, device=device
    )
    print(report)


def run(
    policy: Policy,
    world: World,
    *,
    out: Path,
    start: int | None = None,
    plan: bool = False,
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

    Args:
        policy: A policy's folder, or "expert": the world's own scripted one.
        world: metaworld/TASK, libero/SUITE/INDEX or bimanual/TASK.
        out: Folder for the film and the transcript.
        start: Number of the start; the first for tests by default.
        plan: Let GEM plan and judge.
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
        turn: Turn LIBERO's pictures by 180 degrees, as published data are.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.recipes.plan_act import PlanSettings, run_episode
    from gemvlm.worlds.open_world import WorldMaker

    settings = PlanSettings(execute, judged_every, tries, steps, words)
    make = WorldMaker(drawing=drawing, assets=assets, turn=turn)
    print(run_episode(policy, make, world, out, settings, gem if plan else None, start, seed, device, size))


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
    from gemvlm.recipes.vla_distill import distil_policy
    from gemvlm.recipes.vla_episodes import camera_names
    from gemvlm.training.distillation import DistillationConfig

    config = DistillationConfig(method, steps, learning_rate)
    names = camera_names(camera)
    print(distil_policy(Path(policy), data, out, config, camera_names=names, batch_size=batch_size, device=device))


def serve(
    policy: Policy,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Annotated[Path | None, arg(metavar="FILE")] = None,
    camera: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME_AT_ROBOT=NAME")] = (),
    harness: str | None = None,
    execute: int | None = None,
    device: Device = None,
) -> None:
    """Answer robots over a websocket, in openpi's protocol, until interrupted.

    The key that clients must send, if one is wanted, is read from the environment variable GEMVLM_API_KEY.

    Args:
        policy: A policy's folder.
        host: Address to listen on; 0.0.0.0 for every network that reaches this machine.
        port: Port to listen on.
        limits: JSON with ranges, workspace, speeds, moves and stale_after_s; nothing is cut by default.
        camera: What the robot calls a camera, and what the policy does; may be given several times.
        harness: Speak the protocol of AllenAI's vla-evaluation-harness instead, for this benchmark of it.
        execute: For the harness: actions of each chunk that are given out.
        device: cpu, cuda or mps; the best there is by default.
    """
    import json

    from gemvlm.inference.policy import load_policy
    from gemvlm.recipes.vla_episodes import camera_names
    from gemvlm.runtime import secret

    loaded = load_policy(policy, device)
    if harness is not None:
        from gemvlm.evaluation.harness_server import HARNESS, serve_harness

        if harness not in HARNESS:
            raise ValueError(f"--harness {harness}: there are {', '.join(HARNESS)}")
        serve_harness(loaded, HARNESS[harness], execute=execute, host=host, port=port)
        return
    from gemvlm.robot.limits import Limits
    from gemvlm.serving.robot_server import serve_policy
    from gemvlm.serving.robot_service import ServerSettings

    bounds = None if limits is None else Limits.from_dict(json.loads(limits.read_text(encoding="utf-8")))
    height, width = next(iter(loaded.card.data.get("pictures", {"": (224, 224)}).values()))
    settings = ServerSettings(
        api_key=secret("GEMVLM_API_KEY"), picture_size=(height, width), cameras=camera_names(camera)
    )
    serve_policy(loaded, host, port, limits=bounds, settings=settings)


def trial(
    folder: Folder,
    *,
    policies: tuple[str, str] | None = None,
    tasks: tuple[str, ...] = (),
    pairs: int = 20,
    seed: int = 0,
    whose: int | None = None,
    report: bool = False,
    unblind: bool = False,
) -> None:
    """Compare two policies at a real robot, blind: plan a trial, ask whether to go on, and read it.

    Args:
        folder: Of the trial. With --policies it is made there; else its sheet is read.
        policies: Names of the two, A and B.
        tasks: What the robot is asked to do.
        pairs: Pairs of attempts in all, at most: each policy once from the same start.
        seed: Of the order, which is sealed.
        whose: Print which policy plays this attempt: for the program that starts it, not for the people.
        report: Break the seal and tell how it ended.
        unblind: Report although the rule says to go on; the trial is then over.
    """
    from gemvlm.evaluation import trial as trials

    if policies is not None:
        print(trials.plan_trial(policies, tasks, pairs, seed, folder))
    elif whose is not None:
        print(trials.policy_of(folder, whose))
    elif report or unblind:
        print(trials.trial_report(trials.read_trial(folder, unblind)))
    else:
        print(trials.trial_status(folder))
