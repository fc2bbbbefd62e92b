"""Commands for a real robot: `gemvlm vla serve`, `gemvlm vla trial`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from gemvlm.commands import Device, Folder, Precision, Scheme
from gemvlm.commands.vla import Policy


def serve(
    policy: Policy,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Annotated[Path | None, arg(metavar="FILE")] = None,
    camera: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME_AT_ROBOT=NAME")] = (),
    prompt: Annotated[str | None, arg(metavar="TEXT")] = None,
    harness: str | None = None,
    execute: int | None = None,
    device: Device = None,
    dtype: Precision = "float32",
    quantised: Scheme = None,
) -> None:
    """Answer robots over a websocket, in openpi's protocol, until interrupted.

    The key that clients must send, if one is wanted, is read from the environment variable GEMVLM_API_KEY.

    Args:
        policy: A policy's folder.
        host: Address to listen on; 0.0.0.0 for every network that reaches this machine.
        port: Port to listen on.
        limits: JSON with ranges, workspace, speeds, moves and stale_after_s; nothing is cut by default.
        camera: What the robot calls a camera, and what the policy does; may be given several times.
        prompt: What a robot is to do that sends no prompt of its own, as openpi's ALOHA example.
        harness: Speak the protocol of AllenAI's vla-evaluation-harness instead, for this benchmark of it: libero, or
            simpler_widowx for policies of --embodiment bridge.
        execute: For the harness: actions of each chunk that are given out; by default what the policy was made for.
        device: cpu, cuda or mps; the best there is by default.
        dtype: Of the weights and of the work; bfloat16 takes half the memory and is what GPUs are fast at.
        quantised: int8, int8_dynamic or int4: smaller weights, on a CPU; see docs/faster.md for what they bring.
    """
    import json

    from gemvlm.inference.policy import load_policy
    from gemvlm.recipes.vla_episodes import camera_names
    from gemvlm.recipes.vla_run import told_to_robots
    from gemvlm.runtime import secret

    loaded = load_policy(policy, device, dtype, quantised)
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
    settings = ServerSettings(
        api_key=secret("GEMVLM_API_KEY"),
        pictures=loaded.picture_sizes,
        about=told_to_robots(loaded.card),
        cameras=camera_names(camera),
        prompt=prompt,
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
