"""Demonstrations of the worlds' scripted experts as a LeRobot v3 folder with depth.

Only starts for demonstrations are used, in their order from the first on, until each task has as many episodes as were
asked for; those in which the expert failed are left out and counted in `recording.json`, with every start. Episodes
take turns by task, so that any beginning of the folder has as many of each. `noise` moves the hand off the expert's way
while the expert's own action is what is recorded, so that a policy sees how to come back. What is finished is kept in
`NAME.parts` beside the folder until it is written: an interrupted recording goes on, and any number of processes
makes the same numbers and pixels. So are the bytes, but for videos of depth: x265 codes equal pictures in one of two
ways now and then.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from gemvlm.data.episodes import ArrayData, CameraInfo, Episode, write_lerobot
from gemvlm.data.episodes.depth_codes import LARGEST_CODE, DepthCodes
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.worlds.robot_world import RobotWorld

CODES = DepthCodes()
MAX_FAILURES = 20
"""Of one task, beyond as many as its demonstrations; a weaker expert is no expert."""
PLAN, REPORT = "plan.json", "recording.json"


@dataclass(frozen=True)
class Recording:
    """What to record. `tasks` are names that the maker of worlds knows; `demonstrations` are wanted of each.

    `noise` is the standard deviation added to what is executed, in the action's own units, but not to grippers;
    `afterwards` steps follow the first success, so that an episode does not end in motion. `seed` shifts the starts:
    the first is that many beyond the world's first start for demonstrations.
    """

    tasks: tuple[str, ...]
    demonstrations: int
    noise: float = 0.0
    afterwards: int = 5
    seed: int = 0
    depth: bool = True

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"recording: {list(self.tasks)} are no tasks to record; name at least one, each once")
        if self.demonstrations < 1:
            raise ValueError(f"recording: {self.demonstrations} demonstrations of each task; give at least 1")
        if self.noise < 0 or self.afterwards < 0 or self.seed < 0:
            raise ValueError("recording: noise, afterwards and seed must not be negative")


@dataclass(frozen=True)
class Recorded:
    """What was recorded: episodes and actions, and how many starts of each task the expert failed."""

    path: Path
    episodes: int
    steps: int
    failures: Mapping[str, int]


def record_worlds(out: Path, make: Callable[[str], RobotWorld], recording: Recording, processes: int = 1) -> Recorded:
    """Records into the new folder `out`; `make` is pickled into each process. Goes on where it was broken off.

    ValueError if `out` holds anything, if another recording was begun there (other worlds or pictures, too), if a world
    can't be made, or if an expert is missing or fails more starts than it solves.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: not empty; give a new folder")
    try:
        for task in recording.tasks:  # all of them can be made, before hours go into the first
            _world(make, task)
        parts = _begun(out, make, recording)
        with _workers(processes) as pool:
            solved = {task: _gather(pool, parts, make, recording, task) for task in recording.tasks}
    finally:
        _forget_world()
    order = [solved[task][0][turn] for turn in range(recording.demonstrations) for task in recording.tasks]
    episodes = [_read(path) for path in order]  # descriptions: pictures are read when they are written
    draft = out.with_name(f"{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a recording that was broken off while it was written
    write_lerobot(draft, episodes, CODES)
    failures = {task: len(failed) for task, (_, failed) in solved.items()}
    steps = sum(episode.length for episode in episodes)
    report = {
        "recording": asdict(recording),
        "starts": {task: [_start_of(path) for path in kept] for task, (kept, _) in solved.items()},
        "failed_starts": {task: [_start_of(path) for path in failed] for task, (_, failed) in solved.items()},
        "episodes": len(episodes),
        "steps": steps,
        "worlds": {task: json.loads(_facts(kept[0])["protocol"]) for task, (kept, _) in solved.items()},
    }
    (draft / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    draft.replace(out)
    shutil.rmtree(parts)
    return Recorded(out, len(episodes), steps, failures)


def _begun(out: Path, make: Callable[[str], RobotWorld], recording: Recording) -> Path:
    """The folder of what is finished. ValueError, with the differences, if it belongs to another recording."""
    parts = out.with_name(f"{out.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, str] = {}
    if is_dataclass(make):
        drawn = {one.name: str(getattr(make, one.name)) for one in fields(make)}
    plan = json.loads(json.dumps(asdict(recording) | {"worlds": drawn}))
    if (parts / PLAN).is_file() and (there := json.loads((parts / PLAN).read_text())) != plan:
        changed = [f"{key}: {there.get(key)} there, {plan[key]} now" for key in plan if there.get(key) != plan[key]]
        raise ValueError(
            f"{parts}: another recording was begun here ({'; '.join(changed)}); finish it as it was asked for, or "
            "remove it"
        )
    (parts / PLAN).write_text(json.dumps(plan, indent=2) + "\n")
    return parts


@contextmanager
def _workers(processes: int) -> Iterator[Executor | None]:
    """Processes that inherit nothing; None for one, which is this one."""
    if processes <= 1:
        yield None
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield pool


def _gather(
    pool: Executor | None, parts: Path, make: Callable[[str], RobotWorld], recording: Recording, task: str
) -> tuple[list[Path], list[Path]]:
    """The parts of a task: as many solved ones as are wanted, and those that were failed on the way.

    Starts are tried in waves of as many as are still missing, whatever the number of processes.
    """
    kept: list[Path] = []
    failed: list[Path] = []
    while missing := recording.demonstrations - len(kept):
        first = recording.seed + len(kept) + len(failed)
        orders = [(make, recording, task, number, parts) for number in range(first, first + missing)]
        paths = (
            [_play(*order) for order in orders] if pool is None else list(pool.map(_play, *zip(*orders, strict=True)))
        )
        for path in paths:
            (kept if bool(_facts(path)["solved"]) else failed).append(path)
        if len(failed) > recording.demonstrations + MAX_FAILURES:
            raise ValueError(f"{task}: the expert failed {len(failed)} of {len(failed) + len(kept)} starts; no expert")
    return kept, failed


_WORLD: tuple[Callable[[str], RobotWorld], str, RobotWorld] | None = None
"""The world that this process made last, of which maker and task: making one takes seconds."""


def _world(make: Callable[[str], RobotWorld], task: str) -> RobotWorld:
    """The world of a task, made unless it was the last one."""
    global _WORLD
    if _WORLD is None or _WORLD[:2] != (make, task):
        _forget_world()
        _WORLD = make, task, make(task)
    return _WORLD[2]


def _forget_world() -> None:
    global _WORLD
    if _WORLD is not None:
        _WORLD[2].close()
    _WORLD = None


def _play(make: Callable[[str], RobotWorld], recording: Recording, task: str, number: int, parts: Path) -> Path:
    """Plays one start, unless that was done before; the file that tells of it."""
    path = parts / f"{task.replace('/', '~').replace(' ', '_')}-{number:07d}.npz"
    if path.is_file():
        return path
    world = _world(make, task)
    arrays = _episode(world, recording, world.demonstration_starts[number])
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    with fresh.open("wb") as file:
        np.savez(file, **arrays)
    fresh.replace(path)
    return path


def _episode(world: RobotWorld, recording: Recording, start: int) -> dict[str, Any]:
    """What the expert does from a start, as arrays; without pictures if it fails."""
    rng = np.random.default_rng((recording.seed, zlib.crc32(world.name.encode()), start))
    loose = np.array([not _is_grip(name) for name in world.contract.action_names])
    observation = world.reset(start)
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in world.contract.cameras}
    depths: dict[str, list[np.ndarray]] = {camera: [] for camera in world.contract.cameras}
    left: int | None = None
    for _ in range(world.horizon):
        action = world.expert_action()
        if action is None:
            raise ValueError(f"{world.name}: has no scripted expert; record another task")
        states.append(observation.state)
        actions.append(action)
        for camera, depth in world.depths().items():
            images[camera].append(observation.images[camera])
            if recording.depth:
                depths[camera].append(CODES.encode(_in_range(depth)))
        moved = action + recording.noise * rng.standard_normal(len(action)) * loose
        observation, done = world.step(moved)
        left = recording.afterwards if done and left is None else left
        if left is not None:
            if left == 0:
                break
            left -= 1
    facts = {
        "solved": np.array(left is not None),
        "start": np.array(start),
        "instruction": np.array(world.instruction),
        "name": np.array(world.name),
        "embodiment": np.array(world.contract.embodiment),
        "rate_hz": np.array(world.contract.rate_hz),
        "state_names": np.array(world.contract.state_names),
        "action_names": np.array(world.contract.action_names),
        "cameras": np.array(world.contract.cameras),
        "protocol": np.array(json.dumps(dict(world.protocol))),
    }
    if left is None:
        return facts
    signals = {"state": np.array(states, np.float32), "action": np.array(actions, np.float32)}
    pictures = {f"image_{camera}": np.array(frames) for camera, frames in images.items()}
    codes = {f"depth_{camera}": np.array(frames, np.uint16) for camera, frames in depths.items() if frames}
    return facts | signals | pictures | codes


def _is_grip(name: str) -> bool:
    return "grip" in name


def _in_range(depth: DepthMap) -> DepthMap:
    """Without what is beyond the depths that a LeRobot folder can hold (walls and floors far behind the scene)."""
    seen = depth.valid & (depth.values < CODES.depth_max * (1 - 2 / LARGEST_CODE))
    return DepthMap(depth.values, seen, depth.kind, depth.unit, depth.source, depth.origin)


def _facts(path: Path) -> dict[str, Any]:
    """What a part says about itself. ValueError if it can't be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].item() for name in file.files if file[name].ndim == 0}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it, and it will be recorded again") from error


def _start_of(path: Path) -> int:
    return int(_facts(path)["start"])


@dataclass(frozen=True)
class _Part:
    """Reads one finished part when its numbers or pictures are asked for."""

    path: Path
    fps: float

    def signal(self, name: str, start: int, stop: int) -> Float32[np.ndarray, "T D"]:
        with np.load(self.path, allow_pickle=False) as file:
            return file[name][start:stop]

    def frames(self, camera: str, indices: Sequence[int]) -> tuple[Any, ...]:
        origin = DepthOrigin("simulator")
        with np.load(self.path, allow_pickle=False) as file:
            images = file[f"image_{camera}"][list(indices)]
            codes = file[f"depth_{camera}"][list(indices)] if f"depth_{camera}" in file.files else None
        depths = [] if codes is None else [CODES.decode(code, str(self.path)) for code in codes]
        told = [DepthMap(d.values, d.valid, d.kind, d.unit, d.source, origin) for d in depths]
        data = ArrayData(self.fps, {camera: images}, {camera: told} if told else {})
        return data.frames(camera, range(len(indices)))


def _read(path: Path) -> Episode:
    facts = _facts(path)
    with np.load(path, allow_pickle=False) as file:
        names = {key: tuple(map(str, file[key])) for key in ("state_names", "action_names", "cameras")}
        length = len(file["action"])
        cameras = {}
        for camera in names["cameras"]:
            height, width = file[f"image_{camera}"].shape[1:3]
            cameras[camera] = CameraInfo(height, width, has_depth=f"depth_{camera}" in file.files)
    return Episode(
        id=f"{facts['name']}/{facts['start']}",
        instruction=str(facts["instruction"]),
        length=length,
        fps=float(facts["rate_hz"]),
        cameras=cameras,
        data=_Part(path, float(facts["rate_hz"])),
        state_names=names["state_names"],
        action_names=names["action_names"],
        success=True,
        robot=str(facts["embodiment"]),
        licence=str(json.loads(str(facts["protocol"])).get("licence", "unknown")),
    )
