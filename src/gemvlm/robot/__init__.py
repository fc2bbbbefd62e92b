"""What passes between robots and policies, and what the numbers mean."""

from gemvlm.robot.contract import ActionChunk, ActionContract, Committed, Policy, RobotObservation

__all__ = ["ActionChunk", "ActionContract", "Committed", "Policy", "RobotObservation"]
