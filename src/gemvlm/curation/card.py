"""The card of a set, written by machine: `card.json` for programs, `README.md` for people and for hubs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemvlm.curation.facts import Facts
from gemvlm.curation.funnel import Funnel
from gemvlm.curation.plan import Plan

CARD, README = "card.json", "README.md"

INTENDED_USE = """\
Training and studying embodied vision-language models that answer questions about images and learn from generating
depth. Splits and confidence intervals should go by scene: samples of one scene resemble each other. The set holds no
test data; score models on benchmarks that its fingerprints were checked against, or on scenes that it has not."""

BASES = {"paper": "named by the paper", "card": "named by a data card", "ours": "our choice"}


@dataclass(frozen=True)
class Card:
    """Everything that a set says about itself. `identity` is what its bytes depend on, besides the data."""

    plan: Plan
    identity: Mapping[str, Any]
    facts: Facts
    funnel: Funnel
    command: str = ""

    def to_bytes(self) -> bytes:
        """`card.json`."""
        fields = {
            "name": self.plan.name,
            "about": self.plan.about,
            "command": self.command,
            "identity": dict(self.identity),
            "not_included": [use.name for use in self.plan.missing()],
            "facts": self.facts.to_json(),
            "funnel": self.funnel.to_json(),
        }
        return (json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def to_markdown(self) -> str:
        """`README.md`, with the header that data hubs read."""
        facts = self.facts
        counts = (
            f"{facts.samples:,} samples, {facts.turns:,} questions, {facts.frames:,} frames, {facts.scenes:,} scenes"
        )
        parts = [
            self._header(),
            f"# {_plain(self.plan.name)}\n\n{_plain(self.plan.about)}\n\n**{counts}**",
            f"## Intended use\n\n{INTENDED_USE}",
            "## Sources\n\n" + self._sources(),
            "## Licences\n\n" + self._licences(),
            "## Question families\n\n" + self._families(),
            "## Depth\n\n" + self._depth(),
            "## What was left out\n\nEvery candidate is counted; `rejections.jsonl` names each one with its reason.\n\n"
            + _table(("source", "what", "stage: reason", "count", "share"), self.funnel.rows()),
            "## How it was made\n\n" + self._making(),
        ]
        return "\n\n".join(parts) + "\n"

    def _header(self) -> str:
        licences = {licence.lower() for source in self.facts.sources.values() for licence in source.licences}
        known = bool(licences) and all(re.fullmatch(r"[a-z0-9.+-]+", licence) for licence in licences)
        names = sorted(licences) if known and "unknown" not in licences else ["other"]
        lines = ["---", f"pretty_name: {json.dumps(_plain(self.plan.name))}", "license:"]
        lines += [f"- {name}" for name in names]
        lines += ["task_categories:", "- image-text-to-text", "- visual-question-answering", "- depth-estimation"]
        return "\n".join([*lines, "language:", "- en", f"size_categories:\n- {_size(self.facts.samples)}", "---"])

    def _sources(self) -> str:
        uses = [
            (
                use.name,
                ", ".join(use.groups),
                BASES[use.basis],
                "–" if use.count is None else f"{use.count:,}",
                f"{self.funnel.kept[use.name]:,}",
                use.note,
            )
            for use in self.plan.present()
        ]
        text = _table(("source", "groups", "basis", "published count", "samples here", "note"), uses)
        if missing := self.plan.missing():
            text += f"\n\nIn the plan but **not in this set**, since their data was not given: {_names(missing)}."
        return text

    def _licences(self) -> str:
        rows = [
            (name, licence, version or "–", f"{count:,}")
            for name, source in sorted(self.facts.sources.items())
            for licence, count in sorted(source.licences.items())
            for version in [", ".join(sorted(filter(None, source.versions)))]
        ]
        return _table(("source", "licence", "version", "samples"), rows)

    def _families(self) -> str:
        rows = [
            (name, ", ".join(sorted(facts.tasks)), ", ".join(sorted(facts.kinds)), f"{facts.turns:,}")
            for name, facts in sorted(self.facts.families.items(), key=lambda item: (-item[1].turns, item[0]))
        ]
        return _table(("family", "task", "answers", "questions"), rows)

    def _depth(self) -> str:
        rows = [
            (kind, unit or "–", provenance or "–", model or "–", licence or "–", f"{count:,}")
            for (kind, unit, provenance, model, licence), count in sorted(self.facts.depths.items())
        ]
        return _table(("kind", "unit", "provenance", "made by", "its licence", "frames"), rows)

    def _making(self) -> str:
        libraries = ", ".join(f"{name} {version}" for name, version in self.identity["libraries"].items() if version)
        command = f"    {self.command}\n\n" if self.command else ""
        return (
            f"{command}With {libraries}; code {self.identity['code'][:16]}. The same command, code and data make "
            "the same bytes, with any engine and any number of processes. `card.json` holds the whole plan."
        )


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_plain(str(cell)) for cell in line) + " |" for line in lines)


def _names(uses: Iterable[Any]) -> str:
    return ", ".join(_plain(use.name) for use in uses)


def _plain(text: str) -> str:
    """Text of unknown origin on one line, with nothing that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split())) if text else text


def _size(samples: int) -> str:
    """The size class of data hubs."""
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if samples < limit:
            return name
    return "1M<n<10M"
