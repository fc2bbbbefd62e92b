"""Videos as frames with their times, chosen evenly as Qwen's and GEM's loaders do: 8 to 32 frames at 2 per second.

The rule is that of `smart_nframes` in QwenLM's `qwen_vl_utils/vision_process.py`, which GEM's
`qwenvl/data/vision_process.py` (zhaorw02/GEM, 5500948) repeats: duration times rate, at least `least`, at most `most`
and at most what there is, at equal distances from the first to the last frame.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from gemvlm.curation.sources.folder import check_size, read_bytes, read_frame
from gemvlm.curation.sources.records import UNREADABLE, RecordError
from gemvlm.sample import Frame

LONGEST_VIDEO = 200_000
"""Frames of a video (an hour at 50 per second and more): counted before any is decoded."""


@dataclass(frozen=True)
class VideoSampling:
    """How many frames to take: `fps` per second, between `least` and `most`, never more than the video has."""

    fps: float = 2.0
    least: int = 8
    most: int = 32

    def __post_init__(self) -> None:
        if not (self.fps > 0 and 1 <= self.least <= self.most):
            raise ValueError(f"video sampling {self}: needs fps > 0 and 1 <= least <= most")

    def indices(self, frames: int, duration_s: float) -> Int64[np.ndarray, "N"]:
        """Which of `frames` frames to take from a video of `duration_s`."""
        wanted = int(min(max(round(duration_s * self.fps), self.least), self.most, frames))
        return np.linspace(0, frames - 1, wanted).round().astype(np.int64)


REFERENCE_SAMPLING = VideoSampling()


def read_video(path: Path, sampling: VideoSampling, field: str = "video") -> tuple[Frame, ...]:
    """The chosen frames with their `time_s`. RecordError if the file, or any chosen frame, can't be decoded.

    Needs the extra `curate` (PyAV). A display rotation is not applied, like the EXIF orientation of pictures.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("reading videos needs PyAV: pip install 'gemvlm[curate]'") from error
    content = read_bytes(path, field)
    try:
        times = _times(av, content)
        chosen = sampling.indices(len(times), (times[-1] - times[0]) * len(times) / max(len(times) - 1, 1))
        frames = _decoded(av, content, [times[index] for index in chosen])
    except RecordError as fault:
        raise RecordError(fault.reason, f"{path.name}: {fault}", field) from fault
    except UNREADABLE as error:
        raise RecordError(
            "video_unreadable", f"{path.name}: not a readable video ({error}); fetch it again", field
        ) from error
    return tuple(frames)


def _times(av: object, content: bytes) -> list[float]:
    """When each frame is shown, in seconds from the first, without decoding."""
    with av.open(io.BytesIO(content)) as container:  # type: ignore[attr-defined]
        if not container.streams.video:
            raise RecordError("video_unreadable", "there is no video in it")
        stream = container.streams.video[0]
        if not stream.codec_context.width:
            raise RecordError("video_unreadable", "its head does not say how large its frames are")
        check_size(stream.codec_context.width, stream.codec_context.height)
        shown = []
        for packet in container.demux(stream):
            if packet.pts is not None:
                shown.append(float(packet.pts * packet.time_base))
            if len(shown) > LONGEST_VIDEO:
                raise RecordError("video_too_long", f"more than {LONGEST_VIDEO} frames; cut it into clips")
    if not shown:
        raise RecordError("video_unreadable", "no frame of it says when it is shown")
    return sorted(shown)


def _decoded(av: object, content: bytes, chosen: list[float]) -> list[Frame]:
    frames: dict[float, Frame] = {}
    colours = av.video.reformatter.VideoReformatter()  # type: ignore[attr-defined]
    with av.open(io.BytesIO(content)) as container:  # type: ignore[attr-defined]
        stream = container.streams.video[0]
        for decoded in container.decode(stream):
            if decoded.pts is None or float(decoded.pts * decoded.time_base) not in chosen:
                continue
            time_s = float(decoded.pts * decoded.time_base)
            check_size(decoded.width, decoded.height)
            if decoded.is_corrupt:
                raise RecordError("video_unreadable", f"the frame at {time_s:.3f} s is damaged")
            frames[time_s] = Frame(colours.reformat(decoded, format="rgb24").to_ndarray(), time_s=time_s)
            if len(frames) == len(set(chosen)):
                break
    if len(frames) != len(set(chosen)):
        raise RecordError("video_unreadable", f"only {len(frames)} of {len(set(chosen))} chosen frames can be decoded")
    return [frames[time_s] for time_s in sorted(frames)]


def read_frame_folder(
    folder: Path, sampling: VideoSampling, fps: float | None = None, field: str = "video"
) -> tuple[Frame, ...]:
    """Frames of a folder of pictures in the order of their names, taken at `fps` per second (None: times unknown).

    Names sort by the numbers in them, so that "frame_10" comes after "frame_9".
    """
    pictures = sorted((path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")), key=_key)
    if not pictures:
        raise RecordError("missing_file", f"{folder.name}: no JPEG or PNG frames in this folder", field)
    duration_s = len(pictures) / (fps or sampling.fps)
    chosen = sampling.indices(len(pictures), duration_s)
    return tuple(
        read_frame(pictures[index], time_s=None if fps is None else float(index) / fps, field=field) for index in chosen
    )


def _key(path: Path) -> list[tuple[int, int, str]]:

    pieces = re.split(r"(\d+)", path.stem)
    return [(1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces if piece]
