"""A robot that is not there, in a process of its own that knows the client only: `fake_robot.py URL MODE STEPS`.

It has its own clock, a camera that is late and loses frames, motors that lag, joints with ends, and a controller that
counts what it was asked beyond them. Prints a JSON object about its run.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from gemvlm_client import ChunkRunner, Observation, RobotClient

SIZE = 24
FRAME_S = 1 / 30
CAMERA_LATE_S = 0.03
LOST = 0.2
LARGEST_STEP = 0.06
"""The fastest that its motors go, in one tick of 20 ms."""


def own_clock() -> float:
    """Began at another time, and runs 200 millionths too fast."""
    return 5000.0 + 1.0002 * time.monotonic()


class FakeRobot:
    """A carriage on [-1, 1] x [-1, 1] that moves to where it is told, as far as it can."""

    def __init__(self, target: tuple[float, float], frozen_after: int | None = None) -> None:
        self.target, self.frozen_after = target, frozen_after
        self.place = np.zeros(2, np.float32)
        self.rng = np.random.default_rng(0)
        self.frames = 0
        self.shown = (own_clock(), self.picture())
        self.too_far = self.too_fast = 0
        self.sent: list[np.ndarray] = []
        self.stops: list[str] = []

    def picture(self) -> np.ndarray:
        column, row = (round((number + 1) / 2 * (SIZE - 1)) for number in self.target)
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        image[row, column] = 255
        return image

    def observe(self) -> Observation:
        self.frames += 1
        frozen = self.frozen_after is not None and self.frames > self.frozen_after
        if not frozen and self.rng.random() >= LOST:
            self.shown = (own_clock() - CAMERA_LATE_S, self.picture())
        time_s, image = self.shown
        return Observation({"front": image}, self.place.copy(), "drive to the light", time_s)

    def act(self, action: np.ndarray) -> None:
        self.too_far += bool((np.abs(action) > 1.0 + 1e-5).any())
        self.too_fast += bool((np.abs(action - self.place) > LARGEST_STEP + 1e-5).any())
        wanted = np.clip(action, -1.0, 1.0) - self.place
        self.place = self.place + 0.8 * np.clip(wanted, -LARGEST_STEP, LARGEST_STEP).astype(np.float32)
        self.sent.append(action.copy())

    def stop(self, reason: str) -> None:
        self.stops.append(reason)


def main(url: str, mode: str, steps: int) -> None:
    robot = FakeRobot((0.4, -0.3), frozen_after=3 if mode == "frozen" else None)
    with RobotClient(url, clock=own_clock, deadline_s=5.0) as client:
        runner = ChunkRunner(client, robot, real_time=mode != "chunk", patience_s=10.0)
        report = runner.run(steps, seed=1)
    sent = np.stack(robot.sent) if robot.sent else np.zeros((1, 2))
    told = {
        "distance": float(np.abs(robot.place - robot.target).max()),
        "too_far": robot.too_far,
        "too_fast": robot.too_fast,
        "largest_jump": float(np.abs(np.diff(sent, axis=0)).max(initial=0.0)),
        "steps": report.steps,
        "waits": report.waits,
        "chunks": report.chunks,
        "errors": list(report.errors),
        "stopped": report.stopped,
        "stops": robot.stops,
        "torch": "torch" in sys.modules or "gemvlm" in sys.modules,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
