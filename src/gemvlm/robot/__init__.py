"""What passes between robots and policies, and what the numbers mean."""

from gemvlm.robot.contract import ActionChunk, ActionContract, Policy, RobotObservation

__all__ = ["ActionChunk", "ActionContract", "Policy", "RobotObservation"]
