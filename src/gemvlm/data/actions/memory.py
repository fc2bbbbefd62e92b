"""What is kept in memory, up to so many bytes: the least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from gemvlm.sample import Frame

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """Values by key whose sizes, as `size` tells them, sum up to at most `limit` bytes."""

    def __init__(self, limit: int, size: Callable[[Value], int]) -> None:
        self.limit, self.size, self.held = limit, size, 0
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key, read: Callable[[], Value]) -> Value:
        """The value, read and kept if it is not there; one that is larger than the limit is not kept."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = read()
        self.put(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keeps a value, unless it is there already."""
        if key in self._values or self.size(value) > self.limit:
            return
        self._values[key] = value
        self.held += self.size(value)
        while self.held > self.limit:
            self.held -= self.size(self._values.popitem(last=False)[1])


def frame_bytes(frame: Frame) -> int:
    """Memory of a decoded frame with its depth and its publisher's bytes."""
    depth = 0 if frame.depth is None else frame.depth.values.nbytes + frame.depth.valid.nbytes
    return frame.image.nbytes + depth + len(frame.encoded or b"")
