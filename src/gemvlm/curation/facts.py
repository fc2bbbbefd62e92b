"""Counts of a set, from its records alone: no picture is decoded, so that millions are counted in minutes."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gemvlm.sample import PLACE_MARKER

LARGEST_NUMBER_TABLE = 1000
"""Different answers of a family that are told apart; the others count together."""

OTHER = "(other)"


@dataclass
class SourceFacts:
    """What a set holds of one source."""

    samples: int = 0
    frames: int = 0
    turns: int = 0
    licences: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)


@dataclass
class FamilyFacts:
    """Turns of one family: by task, kind, source, and by answer; `letters` counts positions of right options."""

    turns: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)


@dataclass
class Facts:
    """Everything that can be counted. `depths` counts frames by kind, unit, provenance, model and its licence."""

    samples: int = 0
    frames: int = 0
    turns: int = 0
    dialogues: int = 0
    sources: dict[str, SourceFacts] = field(default_factory=lambda: defaultdict(SourceFacts))
    families: dict[str, FamilyFacts] = field(default_factory=lambda: defaultdict(FamilyFacts))
    depths: Counter[tuple[str, ...]] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    frames_per_sample: Counter[int] = field(default_factory=Counter)
    views: int = 0
    _scenes: set[bytes] = field(default_factory=set)

    @property
    def scenes(self) -> int:
        return len(self._scenes)

    def add(self, row: Mapping[str, Any]) -> None:
        """Counts one record (see `ShardReader.record`)."""
        self.samples += 1
        self.frames += len(row["frames"])
        self.turns += len(row["turns"])
        self.dialogues += row["dialogue"]
        self.frames_per_sample[len(row["frames"])] += 1
        # Eight bytes for each scene: millions of long names would not fit.
        self._scenes.add(hashlib.blake2b(row["scene"].encode("utf-8", "replace"), digest_size=8).digest())
        source = self.sources[row["source"]]
        source.samples += 1
        source.frames += len(row["frames"])
        source.turns += len(row["turns"])
        source.licences[row["licence"]] += 1
        source.versions[row["version"]] += 1
        source.splits[row["split"]] += 1
        for frame in row["frames"]:
            self.sizes[f"{frame['width']} x {frame['height']}"] += 1
            self.views += frame["camera"] is not None
            self.depths[_depth_of(frame["depth"])] += 1
        for turn in row["turns"]:
            self._add_turn(turn, row["source"])

    def _add_turn(self, turn: Mapping[str, Any], source: str) -> None:
        family = self.families[turn["family"]]
        family.turns += 1
        family.tasks[turn["task"]] += 1
        family.kinds[turn["kind"]] += 1
        family.sources[source] += 1
        if turn["kind"] == "choice":
            position = turn["options"].index(turn["answer"]) if turn["answer"] in turn["options"] else -1
            family.letters[chr(ord("A") + position) if 0 <= position < 26 else OTHER] += 1
        if turn["kind"] in ("choice", "yes_no", "number", "text") and not PLACE_MARKER.search(turn["answer"]):
            answer = turn["answer"][:60]
            new = answer not in family.answers and len(family.answers) >= LARGEST_NUMBER_TABLE
            family.answers[OTHER if new else answer] += 1

    def to_json(self) -> dict[str, Any]:
        """Counts without the answers, in a stable order."""
        plain = {name: getattr(self, name) for name in ("samples", "frames", "turns", "dialogues", "scenes", "views")}
        sources = {
            name: {
                **{key: getattr(facts, key) for key in ("samples", "frames", "turns")},
                **{key: dict(sorted(getattr(facts, key).items())) for key in ("licences", "versions", "splits")},
            }
            for name, facts in sorted(self.sources.items())
        }
        families = {
            name: {
                "turns": facts.turns,
                "tasks": dict(sorted(facts.tasks.items())),
                "kinds": dict(sorted(facts.kinds.items())),
            }
            for name, facts in sorted(self.families.items())
        }
        names = ("kind", "unit", "provenance", "model", "licence")
        depths = [{**dict(zip(names, key, strict=True)), "frames": n} for key, n in sorted(self.depths.items())]
        return {**plain, "sources": sources, "families": families, "depth": depths}


def _depth_of(depth: Mapping[str, Any] | None) -> tuple[str, ...]:
    if depth is None:
        return ("none", "", "", "", "")
    origin = depth["origin"] or {"provenance": "unknown", "model": depth["source"], "licence": ""}
    licence = origin["licence"] if origin["provenance"] == "teacher" else ""
    return (depth["kind"], depth["unit"], origin["provenance"], origin["model"], licence)
