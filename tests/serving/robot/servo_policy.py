"""A toy: a carriage on a plane, a camera that shows its target, and a policy that drives to what it sees.

As a program it serves the policy on a port of the system's choice, printed first, until it is told to end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from gemvlm.robot import ActionChunk, ActionContract, Committed, RobotObservation

CONTRACT = ActionContract(
    embodiment="carriage",
    state_names=("x", "y"),
    action_names=("x", "y"),
    control="absolute",
    rotation="none",
    gripper="none",
    rate_hz=50.0,
    cameras=("front",),
)
SIZE = 24
PER_ACTION = 0.02
"""How far an action of the policy moves, at most."""


def picture(target: Sequence[float]) -> np.ndarray:
    """What the camera sees: a bright pixel where the target stands in [-1, 1] x [-1, 1]."""
    column, row = (round((number + 1) / 2 * (SIZE - 1)) for number in target)
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[row, column] = 255
    return image


class ServoPolicy:
    """Drives towards the bright pixel; `seconds` is how long it thinks. Some prompts make it misbehave.

    With `gate` set to a threading.Event it thinks until that is set.
    """

    contract = CONTRACT

    def __init__(self, horizon: int = 16, seconds: float = 0.0, gate: threading.Event | None = None) -> None:
        self.horizon, self.seconds, self.gate = horizon, seconds, gate
        self.asked: list[int] = []
        self.seeds: list[int] = []
        self.committed: list[Committed | None] = []

    def act(
        self,
        observations: Sequence[RobotObservation],
        seeds: Sequence[int],
        committed: Sequence[Committed | None] | None = None,
    ) -> list[ActionChunk]:
        committed = [None] * len(observations) if committed is None else committed
        self.asked.append(len(observations))
        self.seeds.extend(seeds)
        self.committed.extend(committed)
        if observations[0].instruction != "wait":  # which is what a server says to get it warm
            if self.gate is not None:
                self.gate.wait(20)
            time.sleep(self.seconds)
        return [self._one(*question) for question in zip(observations, committed, strict=True)]

    def _one(self, observation: RobotObservation, committed: Committed | None) -> ActionChunk:
        if observation.instruction == "fail":
            raise RuntimeError("the arm fell off")
        row, column = np.unravel_index(observation.images["front"][..., 0].argmax(), (SIZE, SIZE))
        target = np.array([column, row], np.float32) / (SIZE - 1) * 2 - 1
        actions = [] if committed is None else list(committed.actions[: committed.fixed])
        place = actions[-1] if actions else observation.state
        while len(actions) < self.horizon:
            place = place + np.clip(target - place, -PER_ACTION, PER_ACTION)
            actions.append(place)
        chunk = np.stack(actions).astype(np.float32)
        if observation.instruction == "not a number":
            chunk[3, 1] = np.nan
        if observation.instruction == "one axis":
            chunk = chunk[:, :1]
        return ActionChunk(chunk, self.contract.rate_hz)


if __name__ == "__main__":
    import asyncio
    import signal

    from gemvlm.serving.robot_server import RobotServer, ServerSettings

    async def serve() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        settings = ServerSettings(picture_size=(SIZE, SIZE), max_message_bytes=2**20)
        async with RobotServer(ServoPolicy(), port=0, settings=settings) as server:
            print(server.url, flush=True)
            await ended.wait()

    asyncio.run(serve())
