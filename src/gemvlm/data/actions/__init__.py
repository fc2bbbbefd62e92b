"""Episodes → batches that a policy learns from, and observations → batches that it answers."""

from gemvlm.data.actions.augmentation import Augmentation
from gemvlm.data.actions.collate import ActionCollator, robot_prompt
from gemvlm.data.actions.dataset import EpisodeDataset, episode_statistics, split_episodes
from gemvlm.data.actions.item import RobotItem
from gemvlm.data.actions.readable import ReadableMoments

__all__ = [
    "ActionCollator",
    "Augmentation",
    "EpisodeDataset",
    "ReadableMoments",
    "RobotItem",
    "episode_statistics",
    "robot_prompt",
    "split_episodes",
]
