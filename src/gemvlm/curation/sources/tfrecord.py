"""TFRecord files of SequenceExamples, read without TensorFlow and within bounds.

A record is: length (uint64), masked CRC-32C of those 8 bytes (uint32), the payload, masked CRC-32C of the payload, all
little-endian; the mask is rotate right by 15 and add 0xa282ead8 (tensorflow/tensorflow,
`tensorflow/core/lib/io/record_writer.h` and `lib/hash/crc32c.h`). The payload is a protocol buffer
(`tensorflow/core/example/example.proto`, `feature.proto`): SequenceExample {context 1, feature_lists 2}, FeatureLists
and Features {map entry 1: key 1, value 2}, FeatureList {feature 1}, Feature {bytes_list 1, ...}, BytesList {value 1}.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt32

from gemvlm.curation.sources.records import RECORDS_PER_PART, RawRecord, RecordError

LARGEST_PAYLOAD = 64 << 20
_POLYNOMIAL = 0x82F63B78
_LANE = 1024
_MASK = 0xA282EAD8
_LENGTH_DELIMITED = 2


def tfrecord_parts(path: Path, file: str) -> list[str]:
    """`FILE:START-STOP:ROW` for each some 100 records of `path`; what follows a damaged length is the last part."""
    starts, size = [], path.stat().st_size
    with path.open("rb") as stream:
        at = 0
        while at < size:
            starts.append(at)
            try:
                at += 16 + _length(stream)
            except RecordError:
                break
            stream.seek(at)
    if not starts:
        raise ValueError(f"{path}: no records in it; fetch the file again")
    borders = [*starts[::RECORDS_PER_PART], size]
    return [f"{file}:{a}-{b}:{i * RECORDS_PER_PART}" for i, (a, b) in enumerate(pairwise(borders))]


def tfrecord_records(root: Path, part: str) -> Iterator[RawRecord]:
    """The records of a part, each {"payload": bytes, "intact": bool}. RecordError where no next record can be found."""
    file, span, first = part.rsplit(":", 2)
    start, stop = map(int, span.split("-"))
    row = int(first)
    with (root / file).open("rb") as stream:
        stream.seek(start)
        while stream.tell() < stop:
            size = _length(stream)
            content = stream.read(size + 4)
            if len(content) < size + 4:
                raise RecordError("file_cut_off", f"the record has {len(content)} of {size + 4} bytes")
            payload, (stated,) = content[:size], struct.unpack("<I", content[size:])
            yield RawRecord(file, row, {"payload": payload, "intact": masked_crc(payload) == stated})
            row += 1


def _length(stream: IO[bytes]) -> int:
    head = stream.read(12)
    if len(head) < 12:
        raise RecordError("file_cut_off", f"the head of a record has {len(head)} of 12 bytes")
    size, stated = struct.unpack("<QI", head)
    if masked_crc(head[:8]) != stated or size > LARGEST_PAYLOAD:
        raise RecordError("bad_length", f"a record's length ({size}) does not fit its checksum, or is too large")
    return int(size)


def masked_crc(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli). Long data is cut into lanes that advance together; a CRC being linear, they are joined by
    what 1024 zero bytes do to a register.
    """
    table = _table()
    lanes = len(data) // _LANE
    crc = 0xFFFFFFFF
    if lanes > 1:
        cut = np.frombuffer(data, np.uint8, lanes * _LANE).reshape(lanes, _LANE)
        registers = np.zeros(lanes, np.uint32)
        registers[0] = crc
        for column in np.ascontiguousarray(cut.T):
            registers = table[(registers ^ column) & 0xFF] ^ (registers >> np.uint32(8))
        shift, crc = _shift(), int(registers[0])
        for register in registers[1:].tolist():
            crc = register ^ int(
                shift[0, crc & 0xFF] ^ shift[1, crc >> 8 & 0xFF] ^ shift[2, crc >> 16 & 0xFF] ^ shift[3, crc >> 24]
            )
        data = data[lanes * _LANE :]
    steps = table.tolist()
    for byte in data:
        crc = steps[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> UInt32[np.ndarray, "256"]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


@cache
def _shift() -> UInt32[np.ndarray, "4 256"]:
    """Registers after a lane of zero bytes, for each value of each of their four bytes."""
    table = _table()
    registers = (np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)).astype(np.uint32)
    for _ in range(_LANE):
        registers = table[registers & 0xFF] ^ (registers >> np.uint32(8))
    return registers


def feature_lists(payload: bytes) -> Mapping[str, list[bytes]]:
    """The feature lists of a SequenceExample: for each name the first bytes value of each of its features.

    RecordError for what is no SequenceExample, and for features that hold numbers or nothing.
    """
    found: dict[str, list[bytes]] = {}
    for lists in _submessages(payload, 2):
        for entry in _submessages(lists, 1):
            parts = dict(_delimited(entry))
            name, feature_list = parts.get(1, b"").decode(errors="replace"), parts.get(2, b"")
            found[name] = [_bytes_value(feature, name) for feature in _submessages(feature_list, 1)]
    if not found:
        raise RecordError("bad_example", "no feature lists: this is not a SequenceExample")
    return found


def _bytes_value(feature: bytes, name: str) -> bytes:
    value = next((value for values in _submessages(feature, 1) for value in _submessages(values, 1)), None)
    if value is None:
        raise RecordError("bad_example", "a feature holds no bytes", name)
    return value


def _submessages(message: bytes, number: int) -> Iterator[bytes]:
    return (value for found, value in _delimited(message) if found == number)


def _delimited(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of each length-delimited field; the other wire types are stepped over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _LENGTH_DELIMITED:
            size, at = _varint(message, at)
            if size > len(message) - at:
                raise RecordError("bad_example", f"a field claims {size} of {len(message) - at} bytes")
            yield key >> 3, message[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise RecordError("bad_example", f"wire type {kind} is not one of protocol buffers")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte, at = message[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise RecordError("bad_example", "a number is cut off or longer than 64 bits")
