"""RoboVQA: TFRecords of SequenceExamples, written here byte by byte as TensorFlow would."""

from __future__ import annotations

import struct
from pathlib import Path

from gemvlm.curation.sources.robovqa import RoboVqa
from gemvlm.curation.sources.tfrecord import masked_crc

TEXT = (
    "<task:affordance:discriminative:discrete:True>\nput packet on the table Q: possible right now? "
    "<PRED>A: <PRED:ANSWER><PRED:DISCRETE><PRED:BINARY>yes</PRED:BINARY></PRED:DISCRETE></PRED:ANSWER>\n</PRED>"
    "<task:future_prediction:freeform>\nQ: what is likely to happen next? <PRED>A: put packet on the table\n</PRED>"
    "<task:remaining5_planning_with_context20:freeform>\ncurrent goal is: tidy up. last 20 steps: 1- put packet on the "
    "table Q: next 5 steps? <PRED>A: 1- open drawer 2- close drawer\n</PRED>"
)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(lists: dict[str, list[bytes]]) -> bytes:
    entries = b""
    for name, values in lists.items():
        features = b"".join(field(1, field(1, field(1, value))) for value in values)
        entries += field(1, field(1, name.encode()) + field(2, features))
    numbers = field(1, field(1, field(1, b"length") + field(2, field(3, field(1, varint(16))))))
    return numbers + field(2, entries)


def record(payload: bytes) -> bytes:
    head = struct.pack("<Q", len(payload))
    return head + struct.pack("<I", masked_crc(head)) + payload + struct.pack("<I", masked_crc(payload))


def write(folder: Path, pictures) -> RoboVqa:
    (folder / "train").mkdir(parents=True)
    for shard in range(2):
        records = [
            record(example({"images": [pictures.encoded(s, "JPEG") for s in range(4 + n)], "texts": [TEXT.encode()]}))
            for n in range(2)
        ]
        (folder / f"train/train-{shard:05d}-of-00002").write_bytes(b"".join(records))
    return RoboVqa(folder)
