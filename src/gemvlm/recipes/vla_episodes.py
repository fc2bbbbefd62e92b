"""Episodes of one robot, found in folders, looked at once, and parted into those to learn from and those held out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gemvlm.data.actions import split_episodes
from gemvlm.data.actions.view import EpisodeView
from gemvlm.data.episodes import Episode, open_episodes
from gemvlm.data.quarantine import QuarantineError
from gemvlm.recipes.run import MAX_BAD_SHARE
from gemvlm.robot import ActionContract
from gemvlm.robot.contract import Control
from gemvlm.robot.embodiments import PLAIN, Embodiment, open_embodiment
from gemvlm.runtime import get_log

REASONS = "bad_episodes.jsonl"


@dataclass(frozen=True)
class Robot:
    """A robot by the name of its embodiment, on which `contract` says what is its own (cameras, rate).

    `camera_names` maps the contract's cameras to those of the episodes, where they are called otherwise.
    """

    name: str
    contract: ActionContract
    camera_names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str, cameras: Mapping[str, str] | None = None, rate_hz: float | None = None) -> Robot:
        """One of `EMBODIMENTS`, if wanted with other cameras (name → name in the episodes) or at another rate."""
        contract = open_embodiment(name).contract
        contract = replace(contract, cameras=tuple(cameras or contract.cameras), rate_hz=rate_hz or contract.rate_hz)
        return cls(name, contract, dict(cameras or {}))

    @classmethod
    def plain(cls, folder: Path, control: Control, cameras: Mapping[str, str] | None = None) -> Robot:
        """The robot of a folder of episodes with its numbers as they are: names, rate and cameras of the first episode.

        The files don't say whether an action is where to be or how far to move: `control` does.
        """
        first = open_episodes(folder)[0]
        chosen = dict(cameras or {name.rpartition(".")[2]: name for name in sorted(first.cameras)})
        if not cameras and len(chosen) < len(first.cameras):
            raise ValueError(
                f"{folder}: of the cameras {sorted(first.cameras)} some have the same last name; name each with "
                "--camera NAME=THEIRS"
            )
        contract = ActionContract(
            embodiment=first.robot,
            state_names=first.state_names,
            action_names=first.action_names,
            control=control,
            rotation="none",
            gripper="none",
            rate_hz=first.fps,
            cameras=tuple(chosen),
        )
        return cls(PLAIN, contract, chosen)

    @classmethod
    def of_options(
        cls, name: str, folder: Path, control: Control | None, cameras: Sequence[str], rate_hz: float | None
    ) -> Robot:
        """As the command line says: `plain` needs `control`, the others know it."""
        names = camera_names(cameras)
        if name != PLAIN:
            if control is not None:
                raise ValueError(f"--control {control}: the embodiment {name} says itself; leave it out, or take plain")
            return cls.named(name, names, rate_hz)
        if control is None:
            raise ValueError("--embodiment plain: episodes don't say what actions mean; add --control absolute|delta")
        robot = cls.plain(folder, control, names)
        return robot if rate_hz is None else replace(robot, contract=replace(robot.contract, rate_hz=rate_hz))

    @property
    def embodiment(self) -> Embodiment:
        return open_embodiment(self.name, self.contract)


def camera_names(words: Sequence[str]) -> dict[str, str]:
    """`NAME=OTHER` words as a mapping. ValueError for others."""
    pairs = [word.partition("=") for word in words]
    if wrong := [word for word, (left, _, right) in zip(words, pairs, strict=True) if not left or not right]:
        raise ValueError(f"--camera {wrong[0]}: write NAME=OTHER_NAME")
    return {left: right for left, _, right in pairs}


@dataclass(frozen=True)
class Found:
    """Whole episodes, to learn from and held out."""

    learned: Sequence[Episode]
    held_out: Sequence[Episode]


def find_episodes(folders: Sequence[Path], robot: Robot, held_out: float, seed: int, out: Path) -> Found:
    """The usable episodes of all folders. Of so few that `held_out` is less than one of them, none is held out.

    Left out, and counted, are those judged a failure and those that can't be read: these stand in
    `out/bad_episodes.jsonl`. QuarantineError if more than `MAX_BAD_SHARE` of them, and more than one, is unreadable.
    """
    if not folders:
        raise ValueError(
            "add --data EPISODES, a folder of LeRobot's, HDF5 or RDT2's layout; `gemvlm vla record` makes one from a "
            "simulated world"
        )
    good: list[Episode] = []
    bad: list[dict[str, str]] = []
    failed = 0
    for folder in folders:
        episodes = open_episodes(folder)
        for number in range(len(episodes)):
            try:
                episode = episodes[number]
                _look(episode, robot)
            except ValueError as error:
                bad.append({"folder": folder.name, "episode": str(number), "reason": str(error)})
                continue
            if episode.success is False:
                failed += 1
            else:
                good.append(episode)
    _report(good, bad, failed, out)
    if len(good) * held_out < 1:
        get_log().info("%d episodes, of which none is held out: errors are not measured", len(good))
        return Found(good, ())
    return Found(*split_episodes(good, held_out, seed))


def _look(episode: Episode, robot: Robot) -> None:
    """ValueError for an episode of another robot, with damaged numbers, or whose first or last pictures are missing."""
    view = EpisodeView.of(episode, robot.contract, robot.camera_names)
    view.state(), view.action()
    for camera in robot.contract.cameras:
        view.frames(camera, sorted({0, episode.length - 1}))


def _report(good: Sequence[Episode], bad: Sequence[Mapping[str, str]], failed: int, out: Path) -> None:
    total = len(good) + len(bad) + failed
    if failed:
        get_log().info("%d of %d episodes are failures: policies do not learn from them", failed, total)
    if bad:
        out.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(dict(line)) + "\n" for line in bad)
        (out / REASONS).write_text(lines, encoding="utf-8")
    if len(bad) > max(1, MAX_BAD_SHARE * total) or (bad and not good):
        raise QuarantineError(
            f"{len(bad)} of {total} episodes can't be used, such as episode {bad[0]['episode']} of {bad[0]['folder']} "
            f"({bad[0]['reason']}); {out / REASONS} names all: repair or remove them, or name the right robot"
        )
    if not good:
        raise ValueError(f"none of {total} episodes is a success: there is nothing to learn from")
