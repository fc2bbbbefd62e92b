"""What the benchmarks that are read from a folder share: opened by place and protocol, read once, checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

from gemvlm.evaluation.benchmark import Item
from gemvlm.evaluation.published import folder_of

IMAGE = "<image>"
Own = TypeVar("Own", bound="FolderBenchmark")


@dataclass(frozen=True)
class FolderBenchmark(ABC):
    """A benchmark in `folder`, a copy of the hub's `hub_id`, under one of its `protocols`."""

    folder: Path
    protocol: str = "official"

    name: ClassVar[str]
    hub_id: ClassVar[str]
    protocols: ClassVar[Iterable[str]]

    @classmethod
    def open(cls: type[Own], place: str, protocol: str = "official") -> Own:
        """From a local folder or a hub id. ValueError for an unknown protocol or place."""
        known(cls.name, protocol, cls.protocols)
        return cls(folder_of(place, cls.hub_id), protocol)

    @abstractmethod
    def read(self) -> Iterator[Item]:
        """The items in the published order; ValueError naming file, row and field."""

    def items(self) -> Sequence[Item]:
        return self._items

    @cached_property
    def _items(self) -> tuple[Item, ...]:
        return checked(self.name, self.read())


def known(name: str, protocol: str, protocols: Iterable[str]) -> None:
    """ValueError that lists the protocols of benchmark `name` if `protocol` is none of them."""
    if protocol not in protocols:
        raise ValueError(f"{name}: protocol {protocol!r} is unknown; choose from {', '.join(protocols)}")


def checked(name: str, items: Iterable[Item]) -> tuple[Item, ...]:
    """The items, if each id is there once and marks of images in prompts agree with the media."""
    found: dict[str, Item] = {}
    for item in items:
        if item.id in found:
            raise ValueError(f"{name}: two items have the id {item.id!r}; fetch the annotations again")
        if item.prompt.count(IMAGE) not in (0, len(item.media)):
            raise ValueError(
                f"{name}: item {item.id!r} marks {item.prompt.count(IMAGE)} places of images and has {len(item.media)}"
            )
        found[item.id] = item
    return tuple(found.values())
