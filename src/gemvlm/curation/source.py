"""What every source of samples promises: stable parts, each of which can be read again and gives the same samples.

A source is a frozen dataclass (its fields are paths and options), so that a recipe can name it and a worker process can
be sent it. What can't be used comes out as a `Rejection`, never as an exception and never as silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from gemvlm.sample import Sample

StageName = Literal["import", "depth", "questions", "filter", "licence", "overlap", "duplicate", "balance"]


@dataclass(frozen=True)
class Rejection:
    """One record or question that was left out. `reason` is a short code to count by, `detail` the whole message.

    `file` says where it was read (file and line or row), `field` which of its fields is to blame.
    """

    stage: StageName
    reason: str
    detail: str
    id: str = ""
    file: str = ""
    field: str = ""


@runtime_checkable
class Source(Protocol):
    """`parts()` names units of work of some 100 samples, always the same and in the same order; `read` carries one out.

    ValueError from `parts` if the folder or file as a whole is not what it should be; `read` raises nothing for bad
    content, it yields a `Rejection` per record.
    """

    @property
    def name(self) -> str: ...

    def parts(self) -> Sequence[str]: ...

    def read(self, part: str) -> Iterator[Sample | Rejection]: ...
