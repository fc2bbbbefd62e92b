"""RDT2's WebDataset shards as episodes: moments with a stored chunk of actions each.

Stated in thu-ml/RDT2, `README.md` (commit 0147166a) and `rdt/dataset.py` (commit 8f94530b): `shard-*.tar` with members
`KEY.image.jpg` (both wrist cameras side by side, the left one first), `KEY.action.npy` ((24, 20) float32 at 30 Hz),
`KEY.meta.json` (`sub_task_instruction_key`) and `KEY.action_token.npy`, which is not needed; and a JSON file from those
keys to instructions, called `instruction.json` or `instructions.json`. An action is, for the right arm and then the
left, position, 6-D rotation by columns, and gripper width in metres, relative to where the hand is. There is no state.

One shard is one `Episode` here: its frames are its samples, in the order of the file, and neighbours need not be
neighbours in time. What each sample is told is a sub-task: read with `told="subtask"`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image

from gemvlm.data.episodes.episode import CameraInfo, Episode, SubTask
from gemvlm.data.episodes.video import LARGEST_SIDE
from gemvlm.robot.embodiments.rdt2 import ACTION_NAMES
from gemvlm.sample import Frame

CAMERAS = ("left", "right")
FPS = 30.0
PARTS = ("image.jpg", "action.npy", "meta.json")
LARGEST_MEMBER = 64 << 20
LARGEST_JSON = 64 << 20
LONGEST_CHUNK = 1000
KNOWN_SHARDS = 64


class Moment(NamedTuple):
    """Where the parts of one sample lie in its shard (offset, length), and what it is told."""

    image: tuple[int, int]
    action: tuple[int, int]
    instruction: str


@dataclass(frozen=True)
class Rdt2Shards:
    """The shards of a folder, by name. `instructions` is the JSON file, by default the folder's or its parent's own.

    ValueError for a folder without shards or instructions, and from an episode for what is damaged in its shard.
    """

    path: Path
    instructions: Path | None = None
    licence: str = "unknown"

    def __len__(self) -> int:
        return len(self.shards)

    @cached_property
    def shards(self) -> tuple[Path, ...]:
        found = tuple(sorted(self.path.glob("shard-*.tar")))
        if not found:
            raise ValueError(f"{self.path}: no shard-*.tar in it; is this the folder of the shards?")
        return found

    def __getitem__(self, position: int) -> Episode:
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.path}: shard {position} of {len(self)}")
        shard = self.shards[position]
        reader = _Shard(shard, self._instruction_file())
        moments = reader.moments
        frame, chunk = reader.picture(0), reader.chunk(0)
        height, width = frame.shape[0], frame.shape[1] // 2
        return Episode(
            id=f"{self.path.name}/{shard.stem}",
            instruction="",
            length=len(moments),
            fps=FPS,
            cameras={camera: CameraInfo(height, width) for camera in CAMERAS},
            data=reader,
            subtasks=_parts([moment.instruction for moment in moments]),
            action_names=ACTION_NAMES,
            robot="rdt2",
            licence=self.licence,
            chunk_length=len(chunk),
        )

    def _instruction_file(self) -> Path:
        folders = (self.path, self.path.parent)
        near = [folder / f"instruction{ending}.json" for folder in folders for ending in ("", "s")]
        file = self.instructions or next((path for path in near if path.is_file()), None)
        if file is None:
            raise ValueError(f"{self.path}: no instruction.json in it or beside it; give the file as instructions")
        return file


@dataclass(frozen=True)
class _Shard:
    """Reads one shard by the place of each member; nothing of it stays open."""

    file: Path
    instructions: Path

    @property
    def moments(self) -> tuple[Moment, ...]:
        return _moments(self.file, self.instructions, self.file.stat().st_mtime_ns)

    def signal(self, name: str, start: int, stop: int) -> Float32[np.ndarray, "T D"]:
        """No state; of actions the first of each chunk, which a policy that reads chunks does not use."""
        if name == "state":
            return np.zeros((stop - start, 0), np.float32)
        return np.stack([self.chunk(index)[0] for index in range(start, stop)])

    def chunk(self, index: int) -> Float32[np.ndarray, "H A"]:
        content = _read(self.file, self.moments[index].action)
        try:
            values = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, OSError, EOFError, SyntaxError, MemoryError) as error:
            raise ValueError(f"{self.file}: action {index} is no array ({error}); fetch the shard again") from error
        if values.ndim != 2 or values.shape[1] != len(ACTION_NAMES) or not 0 < len(values) <= LONGEST_CHUNK:
            raise ValueError(f"{self.file}: action {index} is {values.shape}, not (time, {len(ACTION_NAMES)})")
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            raise ValueError(f"{self.file}: action {index} holds what are no numbers; fetch the shard again")
        return values.astype(np.float32)

    def picture(self, index: int) -> Any:
        """Both cameras' pictures side by side."""
        content = _read(self.file, self.moments[index].image)
        try:
            image = Image.open(io.BytesIO(content))
            if max(image.size) > LARGEST_SIDE or image.width % 2:
                raise ValueError(f"{image.size} pixels are not two pictures side by side")
            return np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.file}: picture {index} can't be read ({error}); fetch the shard again") from error

    def frames(self, camera: str, indices: Sequence[int]) -> tuple[Frame, ...]:
        found = []
        for index in indices:
            both = self.picture(index)
            half = both.shape[1] // 2
            own = both[:, :half] if camera == "left" else both[:, half:]
            found.append(Frame(np.ascontiguousarray(own)))
        return tuple(found)


@lru_cache(maxsize=KNOWN_SHARDS)
def _moments(file: Path, instructions: Path, changed: int) -> tuple[Moment, ...]:
    """The complete samples of a shard. Headers are read, and of contents only the small JSON files."""
    told = _told(instructions)
    places: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(file, "r:") as shard:
            for member in shard:
                key, _, part = Path(member.name).name.partition(".")
                if member.isfile() and part in PARTS and member.size <= LARGEST_MEMBER:
                    places.setdefault(key, {})[part] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: not a readable tar file ({error}); fetch the shard again") from error
    if broken := [key for key, parts in places.items() if len(parts) != len(PARTS)]:
        raise ValueError(f"{file}: samples {broken[:4]} ({len(broken)} in all) lack one of {PARTS}; fetch it again")
    if not places:
        raise ValueError(f"{file}: no sample with {PARTS} in it")
    return tuple(
        Moment(parts["image.jpg"], parts["action.npy"], _instruction(file, key, parts["meta.json"], told))
        for key, parts in places.items()
    )


def _instruction(file: Path, key: str, place: tuple[int, int], told: Mapping[str, str]) -> str:
    try:
        name = json.loads(_read(file, place))["sub_task_instruction_key"]
        return told[name]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file}: sample {key}: its meta.json names no known instruction ({error!r})") from error


@lru_cache(maxsize=8)
def _told(path: Path) -> Mapping[str, str]:
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path}: larger than {LARGEST_JSON} bytes; is this the file of instructions?")
    try:
        stated = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(stated, dict) or not all(isinstance(text, str) for text in stated.values()):
        raise ValueError(f"{path}: an object from keys to texts is needed")
    return stated


def _read(file: Path, place: tuple[int, int]) -> bytes:
    offset, length = place
    with file.open("rb") as content:
        content.seek(offset)
        data = content.read(length)
    if len(data) != length:
        raise ValueError(f"{file}: ends inside a member; fetch the shard again")
    return data


def _parts(told: Sequence[str]) -> tuple[SubTask, ...]:
    """Runs of samples that are told the same; those told nothing are none."""

    def runs() -> Iterator[SubTask]:
        start = 0
        for text, run in groupby(told):
            stop = start + len(list(run))
            if text.strip():
                yield SubTask(text.strip(), start, stop)
            start = stop

    return tuple(runs())
