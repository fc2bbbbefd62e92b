"""`gemvlm vla evaluate`: a policy in closed loop beside blind ones, under the published protocol of its worlds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gemvlm.data.episodes import open_episodes
from gemvlm.evaluation.blind_policies import BLIND, Blanked, Demonstration
from gemvlm.evaluation.rollout.protocol import LIBERO_STEPS, Protocol, Task, libero_protocol, metaworld_protocol
from gemvlm.evaluation.rollout.run import Player, run_rollout
from gemvlm.evaluation.rollout_table import Rollouts, write_report
from gemvlm.inference.policy import GemPolicy, load_policy, policy_folder
from gemvlm.inference.quantise import Scheme
from gemvlm.model.policy_card import PolicyCard
from gemvlm.robot import ActionContract, Policy
from gemvlm.robot.contract import ImageTurn
from gemvlm.worlds.open_world import WorldMaker

EXPERT = "expert"
"""The name of the world's own scripted expert, in place of a checkpoint."""
EXPERT_STEPS = 8
"""Of it that are played at once; it looks at every one of them."""


@dataclass(frozen=True)
class Scored:
    """What is played: worlds by name (a LIBERO suite stands for its tasks), starts, and how chunks are carried out."""

    worlds: tuple[str, ...]
    trials: int
    first: int | None = None
    execute: int | None = None
    delay: int = 0

    def protocol(self, executed: int, turned: bool) -> Protocol:
        """ValueError for worlds of several simulators, as each has its own rule, and for no trials."""
        if self.trials < 1:
            raise ValueError(f"{self.trials} trials of each task; give at least 1")
        simulators = sorted({name.partition("/")[0] for name in self.worlds})
        if len(simulators) != 1:
            raise ValueError(f"worlds of {simulators or 'no simulator'}: give those of one simulator at a time")
        execute = executed if self.execute is None else self.execute
        if simulators[0] == "libero":
            return self._libero(execute, turned)
        first = 100 if self.first is None else self.first
        protocol = metaworld_protocol(self.worlds, self.trials, first, execute)
        if simulators[0] != "metaworld":
            from gemvlm.worlds.bimanual.world import HORIZON

            tasks = tuple(replace(task, steps=HORIZON) for task in protocol.tasks)
            protocol = replace(protocol, name=simulators[0], tasks=tasks)
        return replace(protocol, delay=self.delay)

    def _libero(self, execute: int, turned: bool) -> Protocol:
        suites = sorted({name.split("/")[1] for name in self.worlds if "/" in name})
        turn: ImageTurn = "half" if turned else "none"
        whole = libero_protocol(suites, self.trials, self.first or 0, execute, turn)
        wanted: list[Task] = []
        for name in self.worlds:
            found = [task for task in whole.tasks if name in (task.name, f"libero/{task.group}")]
            if not found:
                raise ValueError(f"{name}: write libero/SUITE or libero/SUITE/INDEX, of {', '.join(LIBERO_STEPS)}")
            wanted += found
        return replace(whole, tasks=tuple(wanted), delay=self.delay)


def evaluate_policy(
    path: str,
    scored: Scored,
    make: WorldMaker,
    out: Path,
    *,
    size: int | None = None,
    blind: Sequence[Path] = (),
    lanes: int = 8,
    workers: int = 0,
    videos: int = 1,
    device: str | None = None,
    quantised: Scheme | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Plays into `out/NAME`, one folder for each player, and writes the report; the same call goes on after a kill.

    `blind` are the demonstrations that blind policies are made of: with them the policy is also played without
    pictures; beside the expert they show, before anything is trained, how much a task leaves to be seen. Pictures have
    `size` pixels a side, by default what the policy learned from. Returns the report as Markdown. ValueError if the
    policy does not fit the worlds, or was taught with pictures of another size.
    """
    playing = players(path, blind, device, quantised, lambda: _contract(scored, make))
    policy = playing[0].policy
    executed = EXPERT_STEPS
    if isinstance(policy, GemPolicy):
        executed, size = policy.executed, policy.size_for(size, make.size)
    make = replace(make, size=size or make.size)
    protocol = scored.protocol(executed, make.turn)
    played = []
    for player in playing:
        folder = out / player.name.replace(" ", "-")
        films = videos if player is playing[0] else 0
        run_rollout(protocol, player, make, folder, lanes=lanes, workers=workers, videos=films, progress=progress)
        played.append(Rollouts.read(folder))
    return write_report(played[0], played[1:], out)


def players(
    path: str,
    blind: Sequence[Path],
    device: str | None,
    quantised: Scheme | None,
    contract: Callable[[], ActionContract],
) -> list[Player]:
    """Who is scored, then the blind ones; beside the expert they follow the worlds' `contract`."""
    if path == EXPERT:
        if quantised is not None:
            raise ValueError(f"quantised {quantised}: the scripted expert has no weights; leave it out")
        beside = blind_players(blind, contract(), EXPERT_STEPS) if blind else []
        return [Player(EXPERT, None, {}), *beside]
    folder = policy_folder(path)
    policy = load_policy(folder, device, quantised=quantised)
    about, name = about_policy(policy.card, folder), f"{policy.card.recipe}-{policy.card.step}"
    if quantised is not None:
        about, name = about | {"quantised": quantised}, f"{name}-{quantised}"
    found = [Player(name, policy, about)]
    if blind:
        found.append(Player("no pictures", Blanked(policy), about | {"blind": True}))
        found += blind_players(blind, policy.contract, policy.horizon)
    return found


def _contract(scored: Scored, make: WorldMaker) -> ActionContract:
    world = make(scored.protocol(EXPERT_STEPS, make.turn).tasks[0].name)
    try:
        return world.contract
    finally:
        world.close()


def about_policy(card: PolicyCard, folder: Path) -> dict[str, Any]:
    """What a score says of a checkpoint. Other weights are another player, whatever else is alike."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while piece := file.read(2**24):
                digest.update(piece)
    told = {"recipe": card.recipe, "stage": card.stage, "step": card.step, "flow_steps": card.flow_steps}
    return told | {"weights": digest.hexdigest()[:16], "data": dict(card.data)}


def blind_players(folders: Sequence[Path], contract: ActionContract, horizon: int) -> list[Player]:
    """Every blind policy of `BLIND`, made of these demonstrations."""
    sets = [open_episodes(folder) for folder in folders]
    shown = Demonstration.read(one[number] for one in sets for number in range(len(one)))
    digest = hashlib.sha256()
    for one in shown:
        digest.update(one.states.tobytes() + one.actions.tobytes())
    about = {"blind": True, "demonstrations": len(shown), "numbers": digest.hexdigest()[:16]}
    about["sets"] = [folder.name for folder in folders]
    made: list[tuple[str, Policy]] = [(name, build(shown, contract, horizon)) for name, build in BLIND.items()]
    return [Player(name, policy, about) for name, policy in made]
