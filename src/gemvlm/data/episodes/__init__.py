"""Robot episodes: what one holds (`episode`), and LeRobot folders read (`lerobot`) and written (`lerobot_writer`)."""

from gemvlm.data.episodes.episode import ArrayData, CameraInfo, Episode, EpisodeData, EpisodeSet, SubTask
from gemvlm.data.episodes.lerobot import LeRobotFolder
from gemvlm.data.episodes.lerobot_writer import write_lerobot

__all__ = [
    "ArrayData",
    "CameraInfo",
    "Episode",
    "EpisodeData",
    "EpisodeSet",
    "LeRobotFolder",
    "SubTask",
    "write_lerobot",
]
