"""Trains toys in processes that work together and that may be killed; run by tests in an interpreter of its own.

Reads requests as lines of JSON, {"task": a function of this file, "world": processes, "options": its arguments}, and
answers each with a line {"codes": exit codes, "values": what each returned, "errors": what each wrote, "hung": bool}.
Every request is carried out by processes forked from this one, which has imported everything and computed nothing.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from robot_episodes import robot_episode

from conftest import Workshop, make_sample, make_stage, make_workshop, mixed_samples
from gemvlm.data.actions import EpisodeDataset, episode_statistics
from gemvlm.data.packing import Budget
from gemvlm.data.tokenizer import train_tokenizer
from gemvlm.recipes.vla_debug import EVERYTHING, VLA_DEBUG
from gemvlm.recipes.vla_episodes import Robot
from gemvlm.recipes.vla_run import PolicyData, PolicyFeed, begin, policy_card
from gemvlm.robot.statistics import Normalisation
from gemvlm.runtime import detect
from gemvlm.shards import files
from gemvlm.training import step, tensor_files
from gemvlm.training.loop import Run
from gemvlm.training.loop import train as train_loop
from gemvlm.training.parallel import Sharding
from gemvlm.training.stage import OptimizerConfig

ADAMW = OptimizerConfig("adamw", (0.9, 0.95), weight_decay=0.1, eps=1e-6)
MUON = OptimizerConfig("muon", (0.9, 0.95), weight_decay=0.1, eps=1e-6)
PATIENCE = 240.0


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        patience = request["options"].pop("patience", PATIENCE)
        print(json.dumps(together(request["task"], request["world"], request["options"], patience)), flush=True)


def together(task: str, world: int, options: dict[str, Any], patience: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        paths = [Path(folder) / str(rank) for rank in range(world)]
        children = [forked(task, options, rank, world, port, path) for rank, path in enumerate(paths)]
        codes, hung = waited(children, patience)
        values = [json.loads(path.read_text()) if path.is_file() else None for path in paths]
        errors = [path.with_suffix(".err").read_text() for path in paths]
    return {"codes": codes, "values": values, "errors": errors, "hung": hung}


def forked(task: str, options: dict[str, Any], rank: int, world: int, port: int, path: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with path.with_suffix(".err").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        there = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
        os.environ |= {name: str(value) for name, value in there.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        path.write_text(json.dumps(globals()[task](**options)))
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def waited(children: list[int], patience: float) -> tuple[list[int], bool]:
    """Exit codes, negative for signals; whether some had to be killed because nothing came of them."""
    codes: dict[int, int] = {}
    end, hung = time.monotonic() + patience, False
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    codes[child] = os.waitstatus_to_exitcode(status)
                elif hung:
                    os.kill(child, signal.SIGKILL)
        hung = hung or time.monotonic() > end
        time.sleep(0.01)
    return [codes[child] for child in children], hung


def train(
    folder: str,
    stages: list[dict[str, Any]],
    optimizer: str = "adamw",
    mixed: bool = True,
    sharding: str = "shard",
    cure: bool = True,
    kill: float | None = None,
    kill_at: int | None = None,
    signal_at: dict[str, int] | None = None,
    facts_differ: bool = False,
    budget: list[int] | None = None,
    look: bool = False,
    **options: Any,
) -> bool:
    """Trains, or goes on, in `folder`; whether it finished.

    `kill` kills it after so many seconds of training, `kill_at` just before the so many-th operation on the disk.
    `signal_at` sends rank `rank` the signal `number` at step `step`.
    """
    torch.set_num_threads(1)
    workshop = make_workshop(mixed_samples() if mixed else [make_sample(number) for number in range(8)])
    if not cure:
        step.filling = lambda ours, everyones: None
    if kill is not None:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, kill)
    if kill_at is not None:
        kill_before_operation(kill_at)
    callbacks: list[Callable[..., Any]] = [] if signal_at is None else [signaller(**signal_at)]
    if look:
        callbacks.append(painter(workshop))
    if facts_differ:
        options["facts"] = {"data": os.environ["RANK"]}
    config = {"adamw": ADAMW, "muon": MUON}[optimizer]
    made = [make_stage(**{"optimizer": config, **stage}) for stage in stages]
    if budget is not None:
        made = [replace(stage, budget=Budget(*budget)) for stage in made]
    options = {"log_every": 1, "checkpoint_every": 4, **options}
    finished, _ = workshop.train(Path(folder), made, callbacks, Sharding(sharding), **options)  # type: ignore[arg-type]
    return finished


def train_policy(folder: str, steps: int, batch_size: int, sharding: str = "shard") -> bool:
    """Trains a policy on moments of episodes and on questions, with all three losses."""
    torch.set_num_threads(1)
    robot, words = Robot.named("metaworld"), mixed_samples()
    moments = EpisodeDataset([[robot_episode(number) for number in range(4)]], robot.contract, 8)
    losses = {"action": 1.0, "text": 0.1, "depth": 0.1}
    stage = replace(EVERYTHING, steps=steps, batch_size=batch_size, loss_weights=losses, turns_per_sample=4, ema=None)
    recipe = replace(VLA_DEBUG, stages=(replace(stage, optimizer=ADAMW),), text_share=0.5)
    normalisation = Normalisation(recipe.normalisation, episode_statistics(moments, robot.embodiment))
    data = PolicyData(robot, moments, None, normalisation, words, {})
    texts = [text for sample in words for turn in sample.turns for text in (turn.question, turn.answer)]
    tokenizer = train_tokenizer([*texts, moments[0].wordings[0]], recipe.vocabulary, range(101))
    card = policy_card(recipe, data, tokenizer, None)
    policy, runtime = begin(recipe, card.model, None, None), detect("cpu", "float32")
    feed = PolicyFeed(recipe, data, moments, tokenizer, runtime)
    run = Run(Path(folder), log_every=1, show_progress=False)
    return train_loop(policy, recipe.stages, feed.stream, tokenizer, card, run, runtime, (), Sharding(sharding))  # type: ignore[arg-type]


def signaller(rank: int, number: int, step: int) -> Callable[..., None]:
    def send(gem: Any, stage: Any, state: Any) -> None:
        if state.step == step and os.environ["RANK"] == str(rank):
            os.kill(os.getpid(), number)

    return send


def painter(workshop: Workshop) -> Callable[..., Any]:
    """What the model paints and says, as numbers."""

    def paint(gem: Any, stage: Any, state: Any) -> dict[str, float]:
        batch = next(workshop.stream(replace(stage, batch_size=4)))
        picture = gem.eval().paint(batch, 48, 48, steps=2, guidance=2.0)
        said = gem.backbone.generate(batch, 3, eos_ids=[])
        return {"painted": float(picture.abs().mean()), "said": float(sum(int(part.sum()) for part in said))}

    return paint


def kill_before_operation(count: int) -> None:
    """SIGKILL just before the so many-th of: a tensor file, a small file, a folder flushed, or renamed."""
    left = [count]

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **named)

        return step

    tensor_files.save_file = counted(tensor_files.save_file)  # type: ignore[assignment]
    files.put = counted(files.put)  # type: ignore[assignment]
    files.fsync = counted(files.fsync)  # type: ignore[assignment]
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]


if __name__ == "__main__":
    serve()
