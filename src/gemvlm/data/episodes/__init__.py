"""Robot episodes: what one holds (`episode`), and how folders of them are read and written.

LeRobot folders (`lerobot`, `lerobot_writer`), the HDF5 files of the released GEM-VLA code (`hdf5`), RDT2's shards
(`rdt2`); `open_episodes` tells them apart.
"""

from gemvlm.data.episodes.episode import (
    ArrayData,
    CameraInfo,
    Episode,
    EpisodeData,
    EpisodeSet,
    SubTask,
    readable_episodes,
)
from gemvlm.data.episodes.hdf5 import Hdf5Folder
from gemvlm.data.episodes.latency import Latency
from gemvlm.data.episodes.lerobot import LeRobotFolder
from gemvlm.data.episodes.lerobot_writer import write_lerobot
from gemvlm.data.episodes.open_episodes import open_episodes
from gemvlm.data.episodes.rdt2 import Rdt2Shards

__all__ = [
    "ArrayData",
    "CameraInfo",
    "Episode",
    "EpisodeData",
    "EpisodeSet",
    "Hdf5Folder",
    "Latency",
    "LeRobotFolder",
    "Rdt2Shards",
    "SubTask",
    "open_episodes",
    "readable_episodes",
    "write_lerobot",
]
