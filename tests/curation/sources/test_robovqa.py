"""TFRecords without TensorFlow: checksums, protocol buffers, tasks in one text, and damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemvlm.curation.sources.records import RecordError
from gemvlm.curation.sources.tfrecord import crc32c, feature_lists, masked_crc


def test_checksums_are_those_of_the_standard() -> None:
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720's check value
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert masked_crc(bytes(32)) == ((0x8A9136AA >> 15 | 0x8A9136AA << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("length", [1023, 1024, 2047, 2048, 2049, 5000, 70_001])
def test_long_data_is_summed_as_byte_by_byte(length: int) -> None:
    data = np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8).tobytes()
    crc = 0xFFFFFFFF
    for byte in data:  # the definition, bit by bit
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(data) == crc ^ 0xFFFFFFFF


def test_videos_come_with_all_their_tasks(importing: Any, tmp_path: Path) -> None:
    samples, rejections = importing.read_all(importing.written("robovqa", tmp_path))
    assert not rejections
    assert [len(sample.frames) for sample in samples] == [4, 5, 4, 5]
    first, second, third = samples[0].turns
    assert (first.question, first.answer) == ("put packet on the table Q: possible right now?", "yes")
    assert (first.kind, first.family, first.task) == ("yes_no", "robovqa_affordance_discriminative", "planning")
    assert (second.question, second.answer) == ("Q: what is likely to happen next?", "put packet on the table")
    assert (second.kind, second.family) == ("text", "robovqa_future_prediction")
    assert third.answer == "1- open drawer 2- close drawer"
    assert third.family == "robovqa_remaining5_planning_with_context20"
    assert samples[0].provenance.licence == "CC-BY-4.0"
    assert samples[3].id == "robovqa/train/train-00001-of-00002:1"
    assert all(frame.encoded for frame in samples[0].frames)
    assert len(importing.collated(samples).spans) == 18


def test_damage_costs_one_record_where_the_next_can_be_found(importing: Any, tmp_path: Path) -> None:
    source = importing.written("robovqa", tmp_path)
    path = tmp_path / "train/train-00000-of-00002"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    samples, rejections = importing.read_all(source)
    assert [item.reason for item in rejections] == ["checksum"]
    assert len(samples) == 3
    content[3] ^= 1  # the length: where the next record starts is lost
    path.write_bytes(content)
    samples, rejections = importing.read_all(source)
    assert len(samples) == 2
    assert [item.reason for item in rejections] == ["file_unreadable"]
    other = tmp_path / "train/train-00001-of-00002"
    other.write_bytes(other.read_bytes()[:-7])
    samples, rejections = importing.read_all(source)
    assert len(samples) == 1
    assert len(rejections) == 2
    assert "train-00001-of-00002" in rejections[1].detail


def test_texts_without_answers_are_refused(importing: Any, tmp_path: Path) -> None:
    source = importing.written("robovqa", tmp_path)
    layout, pictures = importing.module("robovqa"), importing.module("pictures")
    jpeg = pictures.encoded(0, "JPEG")
    texts = ["no task at all", "<task:planning> Q: what now?", "<task:planning> Q: what now? <PRED>A: </PRED>"]
    records = [layout.record(layout.example({"images": [jpeg], "texts": [text.encode()]})) for text in texts]
    records += [layout.record(layout.example({"images": [jpeg], "texts": [b"\xff\xfe"]}))]
    records += [layout.record(b"\x12\x7fno"), layout.record(b"")]
    path = tmp_path / "train/train-00000-of-00002"
    path.write_bytes(b"".join(records))
    _, rejections = importing.read_all(source)
    reasons = ["no_tasks", "no_answer", "no_answer", "bad_UnicodeDecodeError", "bad_example", "bad_example"]
    assert [item.reason for item in rejections] == reasons


@pytest.mark.parametrize("payload", [b"\x12", b"\x12\xff\xff\xff\xff\x0f", b"\x13", b"\x80" * 12, b"\x0a\x05ab"])
def test_bytes_that_are_no_protocol_buffer(payload: bytes) -> None:
    with pytest.raises(RecordError):
        feature_lists(payload)
