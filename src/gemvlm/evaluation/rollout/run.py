"""A policy in closed loop: a protocol's episodes → a folder with one line each; killed, it goes on where it stopped.

All lanes act in rounds: those whose episode ended begin the next one, the policy answers all of them as one batch, each
carries its actions out. So what the policy is asked, and in which batch, is the same for any number of processes. After
a kill the episodes that had ended are kept and the others begin again, in other company: a policy that answers each
observation for itself gives the same lines as without the kill, one whose rounding depends on the batch the same up to
that. Evaluation on what was trained on, or with another action convention, is refused before the first step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from gemvlm.evaluation.answer_files import held, mend
from gemvlm.evaluation.rollout.episode import (
    LOST,
    TIMEOUT,
    VIDEOS,
    Episode,
    all_episodes,
    append,
    claim,
    gather,
)
from gemvlm.evaluation.rollout.lane import Job, Moment, Orders, WorldFacts, WorldMaker
from gemvlm.evaluation.rollout.pool import Pool
from gemvlm.evaluation.rollout.protocol import Protocol, Start, misfits
from gemvlm.evaluation.rollout.video import video_suffix
from gemvlm.evaluation.runner import Share
from gemvlm.robot import ActionChunk, ActionContract, Committed, Policy, RobotObservation
from gemvlm.runtime import versions

LONGEST_REASON = 500
HOPELESS = 8
"""First answers that fail, none between them that serves, after which the policy rather than an episode is at fault."""


@dataclass(frozen=True)
class Player:
    """Who plays. `policy` None is the world's own expert; `about` is what a score should say of it (checkpoint)."""

    name: str
    policy: Policy | None
    about: Mapping[str, Any]


@dataclass
class _Running:
    start: Start
    began: float
    observation: RobotObservation
    contract: ActionContract
    moment: Moment
    committed: Committed | None = None


def run_rollout(
    protocol: Protocol,
    player: Player,
    make: WorldMaker,
    folder: Path,
    *,
    lanes: int = 8,
    workers: int = 0,
    videos: int = 0,
    share: Share | None = None,
    retry_broken: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Plays those episodes of `protocol` that have no line yet. True when `episodes.jsonl` holds every one.

    A policy whose first answers all fail, `HOPELESS` of them, ends the run (RuntimeError with its reason): that is no
    score. `lanes` episodes are played together, worlds in this process or in `workers` others. `videos` counts the
    starts of each task that are filmed. With a `share` this call plays every Nth episode; the last of the processes
    makes the file. `retry_broken` plays again what an error of policy or world cut short. `progress(done, of)` counts
    this share's episodes. ValueError with every difference if the policy does not fit the worlds, if the starts are not
    for tests, or if the folder holds another run.
    """
    share = share or Share()
    episodes = protocol.episodes()
    ids = [start.id for start in episodes]
    with Pool(make, lanes, workers) as pool:
        facts = pool.meet(protocol.tasks[0].name)
        _refuse(protocol, player, facts, episodes[0])
        folder.mkdir(parents=True, exist_ok=True)
        claim(folder, identity(protocol, player, facts))
        if not retry_broken and gather(folder, ids):
            return True
        part = folder / f"episodes-{share.rank}-of-{share.world}.jsonl"
        with held(part):
            mend(part)
            there = all_episodes(folder)
            done = {name for name, line in there.items() if not (retry_broken and line.broken)}
            own = [start for index, start in enumerate(episodes) if index % share.world == share.rank]
            waiting = [start for start in own if start.id not in done]
            _play(protocol, player, pool, lanes, waiting, folder, part, videos, progress)
    return gather(folder, ids)


def identity(protocol: Protocol, player: Player, facts: WorldFacts) -> dict[str, Any]:
    """What must be the same for lines to belong together, and what a score must state. The code is in each line."""
    libraries = versions()
    return {
        "protocol": asdict(protocol),
        "player": player.name,
        "about": dict(player.about),
        "contract": asdict(facts.contract),
        "world": dict(facts.protocol),
        "libraries": {name: libraries[name] for name in ("mujoco", "numpy") if name in libraries},
    }


def policy_seed(start: Start, step: int) -> int:
    """The seed of one answer: a function of the episode and the step alone."""
    return crc32(f"{start.id} {step}".encode())


def _refuse(protocol: Protocol, player: Player, facts: WorldFacts, start: Start) -> None:
    if lines := misfits(player.policy, facts, start.task, protocol):
        told = "\n".join(f"- {line}" for line in lines)
        raise ValueError(
            f"{player.name} can't be evaluated on {start.task.name} by protocol {protocol.name!r}:\n{told}"
        )


def _play(
    protocol: Protocol,
    player: Player,
    pool: Pool,
    lanes: int,
    waiting: Sequence[Start],
    folder: Path,
    part: Path,
    videos: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    queue, total, ended = list(reversed(waiting)), len(waiting), 0
    libraries = versions()
    code = f"{libraries.get('gemvlm', '')} {libraries['commit']}".strip()
    running: dict[int, _Running] = {}
    answered, failed = False, 0
    while queue or running:
        over: list[tuple[Start, Moment, float, str | None]] = []
        fresh = {lane: queue.pop() for lane in range(lanes) if lane not in running and queue}
        began = time.perf_counter()
        jobs = {lane: _job(start, protocol, folder, videos) for lane, start in fresh.items()}
        for lane, moment in pool.begin(jobs).items():
            start = fresh[lane]
            if moment.observation is None or moment.facts is None:
                over.append((start, moment, began, f"world error: {moment.error}"))
                continue
            _refuse(protocol, player, moment.facts, start)
            running[lane] = _Running(start, began, moment.observation, moment.facts.contract, moment)
        running = dict(sorted(running.items()))
        orders, errors = _orders(protocol, player.policy, running)
        answered, failed = answered or bool(orders), failed + len(errors)
        if failed >= HOPELESS and not answered:
            raise RuntimeError(
                f"{player.name} gave no answer to its first {failed} observations: {errors[min(errors)]}"
            )
        pool.stop(list(errors))
        for lane, error in errors.items():
            now = running.pop(lane)
            over.append((now.start, now.moment, now.began, f"policy error: {error}"))
        for lane, moment in pool.execute(orders).items():
            now = running[lane]
            if moment.observation is None:
                over.append((now.start, moment, now.began, f"world error: {moment.error}"))
                del running[lane]
            elif moment.over:
                over.append((now.start, moment, now.began, None))
                del running[lane]
            else:
                now.observation, now.moment = moment.observation, moment
        if over:
            append(part, [_episode(protocol, folder, code, *told) for told in over])
            ended += len(over)
            if progress:
                progress(ended, total)


def _job(start: Start, protocol: Protocol, folder: Path, videos: int) -> Job:
    filmed = start.start in protocol.starts[:videos] and start.seed == protocol.seeds[0]
    video = folder / _film(start) if filmed else None
    return Job(start.task.name, start.start, start.task.steps, protocol.success == "any_step", video)


def _episode(
    protocol: Protocol, folder: Path, code: str, start: Start, moment: Moment, began: float, error: str | None
) -> Episode:
    """What is kept. After an error it is a failure, whatever was reached before."""
    reached = moment.first_success is not None
    success = error is None and (reached if protocol.success == "any_step" else moment.done)
    reason = None if success else error or (LOST if reached else TIMEOUT)
    return Episode(
        id=start.id, task=start.task.name, start=start.start, seed=start.seed, success=success, steps=moment.steps,
        first_success=moment.first_success, failure=reason and reason[:LONGEST_REASON],
        seconds=round(time.perf_counter() - began, 3), code=code,
        video=_film(start) if start.seed == protocol.seeds[0] and (folder / _film(start)).is_file() else None,
    )  # fmt: skip


def _orders(
    protocol: Protocol, policy: Policy | None, running: Mapping[int, _Running]
) -> tuple[dict[int, Orders], dict[int, str]]:
    """What each lane does next, or why the policy failed it. Keeps what a late chunk will find committed."""
    if policy is None:
        return {lane: Orders(steps=protocol.execute) for lane in running}, {}
    orders: dict[int, Orders] = {}
    errors: dict[int, str] = {}
    for lane, answer in zip(running, _answers(policy, list(running.values())), strict=True):
        now = running[lane]
        told = answer if isinstance(answer, str) else _unusable(answer, now.contract, protocol)
        if told is not None or isinstance(answer, str):
            errors[lane] = told or ""
            continue
        actions = answer.actions[: protocol.execute]
        if now.committed is not None:
            fixed = now.committed.fixed
            actions = np.concatenate([now.committed.actions[:fixed], actions[fixed:]])
        orders[lane] = Orders(np.ascontiguousarray(actions, np.float32))
        if protocol.delay:
            now.committed = Committed(answer.actions[protocol.execute :], protocol.delay)
    return orders, errors


def _answers(policy: Policy, asked: Sequence[_Running]) -> list[ActionChunk | str]:
    """One answer for each; where a batch raises, each is asked alone, so that one bad observation costs one episode."""
    if not asked:
        return []
    try:
        answers = policy.act(
            [one.observation for one in asked],
            [policy_seed(one.start, one.moment.steps) for one in asked],
            [one.committed for one in asked],
        )
        if len(answers) != len(asked):
            raise ValueError(f"{len(answers)} chunks for {len(asked)} observations")
    except Exception as error:  # a policy is anybody's code; the reason stands in the episode's line
        if len(asked) == 1:
            return [f"{type(error).__name__}: {error}"]
        return [answer for one in asked for answer in _answers(policy, [one])]
    return list(answers)


def _unusable(chunk: ActionChunk, contract: ActionContract, protocol: Protocol) -> str | None:
    """Why a chunk can't be executed."""
    needed, width = protocol.execute + protocol.delay, len(contract.action_names)
    actions = np.asarray(chunk.actions)
    if actions.ndim != 2 or actions.shape[1] != width or len(actions) < needed:
        return f"a chunk of shape {actions.shape}; {needed} actions or more of {width} numbers are needed"
    if not np.isfinite(actions[:needed]).all():
        return f"{int((~np.isfinite(actions[:needed])).sum())} numbers of a chunk are NaN or infinite"
    if chunk.rate_hz != contract.rate_hz:
        return f"actions at {chunk.rate_hz:g} Hz for a robot at {contract.rate_hz:g} Hz"
    return None


def _film(start: Start) -> str:
    return f"{VIDEOS}/{start.task.name.replace('/', '-')}-{start.start:04d}{video_suffix()}"
