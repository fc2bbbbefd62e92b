"""What became of every candidate: records and questions, by source, stage and reason. Everything adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gemvlm.curation.source import Rejection

LONGEST_DETAIL = 500
"""Characters of a rejection's detail, and of what it names, that are kept: inputs may be of any size."""

Reason = tuple[str, str, str]
"""Source, stage, reason."""


@dataclass
class Funnel:
    """Counts of a run. A record is what a source gave, good or bad; a turn is one question of a good record.

    `words_rejected` counts an annotator's words that were refused: those questions stay, in their own words.
    """

    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    rejected: Counter[Reason] = field(default_factory=Counter)
    turns_read: Counter[str] = field(default_factory=Counter)
    turns_kept: Counter[str] = field(default_factory=Counter)
    turns_rejected: Counter[Reason] = field(default_factory=Counter)
    words_rejected: Counter[Reason] = field(default_factory=Counter)

    def add(self, other: Funnel) -> None:
        """Counts of another part of the same run."""
        for name, counts in vars(self).items():
            counts.update(getattr(other, name))

    def check(self) -> None:
        """ValueError unless records in = samples out + rejections, for every source; the same for its turns."""
        for source in sorted(self.read | self.kept):
            for what, read, kept, lost in (
                ("records", self.read, self.kept, self.rejected),
                ("questions", self.turns_read, self.turns_kept, self.turns_rejected),
            ):
                gone = sum(count for (name, *_), count in lost.items() if name == source)
                if read[source] != kept[source] + gone:
                    raise ValueError(
                        f"funnel of {source!r}: {read[source]} {what} came in but {kept[source]} were kept and {gone} "
                        "rejected; a stage loses them in silence: report this with the plan"
                    )

    def to_json(self) -> dict[str, Any]:
        """Plain data in a stable order."""
        flat = {}
        for name, counts in vars(self).items():
            rows = sorted(counts.items())
            named = name.endswith("rejected")
            flat[name] = (
                [{"source": k[0], "stage": k[1], "reason": k[2], "count": n} for k, n in rows] if named else dict(rows)
            )
        return flat

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Funnel:
        """Undoes `to_json`."""
        funnel = cls()
        for name, counts in vars(funnel).items():
            rows = fields[name]
            if isinstance(rows, list):
                counts.update({(row["source"], row["stage"], row["reason"]): row["count"] for row in rows})
            else:
                counts.update(rows)
        return funnel

    def rows(self) -> list[tuple[str, str, str, int, str]]:
        """Lines of a table (source, what, reason, count, share of what came in): in, out and every loss, by source."""
        lines = []
        for source in sorted(self.read):
            for what, read, kept, lost in (
                ("record", self.read[source], self.kept[source], self.rejected),
                ("question", self.turns_read[source], self.turns_kept[source], self.turns_rejected),
            ):
                losses = [(f"{s}: {r}", n) for (name, s, r), n in sorted(lost.items()) if name == source]
                for reason, count in [("in", read), *losses, ("out", kept)]:
                    lines.append((source, what, reason, count, f"{count / read:.1%}" if read else "–"))
            for (name, _, reason), count in sorted(self.words_rejected.items()):
                if name == source:
                    share = f"{count / self.turns_read[source]:.1%}"
                    lines.append((source, "question", f"kept its words: {reason}", count, share))
        return lines


def rejection_fields(rejection: Rejection, source: str, part: str) -> dict[str, Any]:
    """A line of `rejections.jsonl`: the rejection with its texts cut to a bounded length, and where it came from."""
    cut = {name: _cut(value) for name, value in asdict(rejection).items()}
    return {"source": source, "part": part, **cut}


def _cut(text: str) -> str:
    # A lone surrogate can't be written as UTF-8, and bad input may hold one.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST_DETAIL else text[: LONGEST_DETAIL - 1] + "…"
