"""The robot's side of a policy server: ask for chunks of actions, and carry them out at a fixed rate.

from gemvlm_client import ChunkRunner, RobotClient

with RobotClient("ws://server:8000") as client:
    report = ChunkRunner(client, robot).run(max_steps=400)
"""

from gemvlm_client.client import (
    Chunk,
    ContractError,
    DeadlineError,
    Observation,
    RobotClient,
    ServerError,
    UnreachableError,
)
from gemvlm_client.runner import ChunkRunner, Robot, RunReport

__all__ = [
    "Chunk",
    "ChunkRunner",
    "ContractError",
    "DeadlineError",
    "Observation",
    "Robot",
    "RobotClient",
    "RunReport",
    "ServerError",
    "UnreachableError",
]
