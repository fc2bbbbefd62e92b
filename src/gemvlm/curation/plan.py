"""What a curated set is made of, as data: sources and their shares, depth, filters, licences, balance.

A plan is JSON all the way down, so that it can be printed, hashed and written into the set that it made. Where data
sets lie on this machine is no part of a set: `Plan.located` puts the folders in, `Plan.to_json` leaves them out.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gemvlm.curation.annotator import Endpoint
from gemvlm.curation.answer_balance import BalanceRules
from gemvlm.curation.duplicates import DuplicateRules
from gemvlm.curation.filters import FilterRules
from gemvlm.curation.licences import LicenceRules
from gemvlm.curation.overlap import OverlapRules
from gemvlm.curation.source import Source
from gemvlm.data.shares import largest_remainder
from gemvlm.sample import Task

Basis = Literal["paper", "card", "ours"]
"""Who says that a source belongs into a set: the paper, a card of the data, or we."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class SourceUse:
    """One source of a plan. `kind` is a name in `curation.sources.SOURCES`, or "package.module:Class" of your own.

    `options` are the keyword arguments of its class. A source that reads a data set has `located_by`, the option that
    takes its place (a folder, or the id of a data set on the hub), and `root` once that is known. `quota` keeps at most
    so many samples; a plan's limit is shared out by `weight`. `groups` says what of the paper's three groups it feeds,
    `count` how many samples its publisher counts (None: no count is published), `basis` who says that it belongs here.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[Task, ...] = ()
    quota: int | None = None
    weight: float = 1.0
    basis: Basis = "ours"
    count: int | None = None
    note: str = ""
    located_by: str | None = None
    root: str | None = None

    def open(self) -> Source:
        """The source itself. ValueError for an unknown kind, options that it does not take, or a missing folder."""
        if self.located_by is not None and self.root is None:
            raise ValueError(f"source {self.name!r}: where is its data? add --root {self.name}=FOLDER")
        where = {} if self.located_by is None else {self.located_by: self.root}
        try:
            return _source_class(self.kind)(**self.options, **where)
        except TypeError as error:
            raise ValueError(f"source {self.name!r}: {error}; correct its options in the plan") from error


@dataclass(frozen=True)
class DepthPolicy:
    """True depth stays. Frames without any are given that of a `teacher`, "kind:folder" (see `load_teacher`), if named.

    `labels` are fields of `LabelRules`, which say what of a teacher's is accepted. With `required`, a sample of which a
    frame lacks depth after that is rejected.
    """

    teacher: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=lambda: {"required": False})
    required: bool = False


@dataclass(frozen=True)
class Plan:
    """A curated set before it is made. The same plan, code and data make the same bytes.

    `benchmarks` are files of fingerprints (see `overlap`) that nothing in the set may match. A rule that is None is not
    applied. An `annotator` puts questions in other words, where those say the same (see `annotator.rephrase`). The set
    holds at most `limit` samples.
    """

    name: str
    about: str
    sources: tuple[SourceUse, ...]
    depth: DepthPolicy = DepthPolicy()
    filters: FilterRules | None = field(default_factory=FilterRules)
    licences: LicenceRules | None = field(default_factory=LicenceRules)
    overlap: OverlapRules = field(default_factory=OverlapRules)
    benchmarks: tuple[str, ...] = ()
    duplicates: DuplicateRules | None = field(default_factory=DuplicateRules)
    balance: BalanceRules | None = field(default_factory=BalanceRules)
    annotator: Endpoint | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        names = [use.name for use in self.sources]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"plan {self.name!r}: its {len(names)} sources need names of their own, there are {names}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"plan {self.name!r}: a limit of {self.limit} samples makes no set; give 1 or more")

    def located(self, roots: Mapping[str, str]) -> Plan:
        """The plan with the places of its data sets: folders or hub ids. ValueError for names that it has not."""
        wanted = {use.name for use in self.sources if use.located_by is not None}
        if unknown := sorted(roots.keys() - wanted):
            there = ", ".join(sorted(wanted)) or "none"
            raise ValueError(
                f"--root {', '.join(unknown)}: plan {self.name!r} reads no such data set; it reads {there}"
            )
        for name, place in roots.items():
            if not Path(place).exists() and not HUB_ID.fullmatch(place):
                raise ValueError(
                    f"--root {name}={place}: no such folder; give the one that holds the data set, or a hub id"
                )
        # absolute, since workers of a cluster stand elsewhere
        found = {name: str(Path(place).absolute()) if Path(place).exists() else place for name, place in roots.items()}
        sources = (replace(use, root=found[use.name]) if use.name in found else use for use in self.sources)
        return replace(self, sources=tuple(sources))

    def missing(self) -> tuple[SourceUse, ...]:
        """Sources whose folder is not known: they can't be read."""
        return tuple(use for use in self.sources if use.located_by is not None and use.root is None)

    def present(self) -> tuple[SourceUse, ...]:
        """Sources that can be read."""
        return tuple(use for use in self.sources if use not in self.missing())

    def quotas(self) -> dict[str, int | None]:
        """The most samples that each source at hand may give; None is without end.

        The limit is shared out by weight, with largest remainders, so that the shares add up to it.
        """
        present = self.present()
        if self.limit is None or not present:
            return {use.name: use.quota for use in present}
        shares = largest_remainder([use.weight for use in present], self.limit)
        return {use.name: min(share, use.quota or share) for use, share in zip(present, shares, strict=True)}

    def to_json(self) -> dict[str, Any]:
        """Plain data for the card: all but the folders and addresses."""
        fields = asdict(self)
        for use in fields["sources"]:
            del use["root"]
        if self.depth.teacher is not None:
            kind, _, folder = self.depth.teacher.partition(":")
            fields["depth"]["teacher"] = f"{kind}:{Path(folder).name}"
        if self.annotator is not None:
            del fields["annotator"]["base_url"]
        fields["benchmarks"] = [Path(path).name for path in self.benchmarks]
        return json.loads(json.dumps(fields))

    def digest(self) -> str:
        """SHA-256 of everything that the plan says, the folders included."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _source_class(kind: str) -> Callable[..., Source]:
    if ":" in kind:
        module, name = kind.split(":", 1)
        return getattr(importlib.import_module(module), name)
    from gemvlm.curation.sources import SOURCES

    if kind not in SOURCES:
        raise ValueError(f"unknown source {kind!r}; there are {', '.join(sorted(SOURCES))}")
    return SOURCES[kind]
