"""What people hand over as pictures, and what is wrong with it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gemvlm.inference import images as reading
from gemvlm.inference.images import read_image, read_images, read_video


def shades(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((16, 16, 3), 10 * number, np.uint8)).save(folder / f"frame_{number}.png")
    return folder


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "desk.png").touch()
    with pytest.raises(ValueError, match=r"desk.png: the file is empty \(0 bytes\)"):
        read_image(tmp_path / "desk.png")


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(ValueError, match=r"bomb\.png: 9000 x 9000 pixels are more than"):
        read_image(tmp_path / "bomb.png")
    monkeypatch.setattr(reading, "LARGEST_PIXELS", 100)
    with pytest.raises(ValueError, match="make the image smaller"):
        read_image(np.zeros((11, 10, 3), np.uint8))


def test_a_folder_of_frames_is_a_video_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    folder = shades(tmp_path / "clip", 12)
    assert [int(frame[0, 0, 0]) for frame in read_video(folder, 4)] == [0, 30, 70, 110]
    assert len(read_video(folder, 100)) == 12
    assert [int(frame[0, 0, 0]) for frame in read_images(folder)][-1] == 110
    assert len(read_images([folder, folder / "frame_0.png"])) == reading.VIDEO_FRAMES + 1


def test_a_video_file_is_read(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need PyAV")
    from gemvlm.data.episodes.video import VideoWriter

    writer = VideoWriter(tmp_path / "clip.mp4", 32, 32, 10.0)
    for number in range(12):
        writer.write(np.full((32, 32, 3), 20 * number, np.uint8))
    writer.close()
    frames = read_video(tmp_path / "clip.mp4", 3)
    assert [round(float(frame.mean()) / 20) for frame in frames] == [0, 5, 11]


def test_no_pictures_are_no_frames() -> None:
    assert read_images(None) == read_images([]) == []


@pytest.mark.parametrize(("name", "content", "words"), [("a.mp4", b"noise", "not a video"), ("b.mp4", None, "no such")])
def test_a_bad_video_is_named(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        pytest.importorskip("av", reason="videos need PyAV")
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: {words}"):
        read_images(tmp_path / name)


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures in this folder"):
        read_video(tmp_path)
