"""Lines of a finished run → `scores.json`: headline, sub-scores, how sure they are, and what went wrong how often."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from gemvlm.evaluation.answer_files import Line, put, read_answers, read_run
from gemvlm.evaluation.benchmark import Benchmark, Item, Score
from gemvlm.evaluation.headline import OVERALL, Headline, find_headline
from gemvlm.statistics import Interval, grouped_interval, less_certain, mean_interval

SCORES = "scores.json"


@runtime_checkable
class HasBlind(Protocol):
    """A benchmark with baselines of its own that see no image: scores of every item, in the order of `items()`."""

    def blind(self) -> dict[str, list[float]]: ...


@dataclass(frozen=True, eq=False)
class Results:
    """A finished run. `run` says who answered what, `lines` are the items, `scores` is what `scores.json` holds."""

    folder: Path
    run: Mapping[str, Any]
    lines: Sequence[Line]
    scores: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """ValueError if the run is not finished or has no scores."""
        run, lines = read_run(folder), read_answers(folder)
        try:
            scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
            if not isinstance(scores, dict) or "summary" not in scores:
                raise ValueError("no summary in it")
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder}: {SCORES} can't be read ({error}); run the evaluation again") from error
        return cls(folder, run, lines, scores)

    @property
    def model(self) -> str:
        return str(self.run["model"])

    @property
    def benchmark(self) -> str:
        """Name and protocol."""
        return f"{self.run['benchmark']}, {self.run['protocol']}"

    @property
    def values(self) -> Float[np.ndarray, " items"]:
        """The score of each item."""
        return np.array([line["score"] for line in self.lines], np.float64)

    @property
    def scenes(self) -> list[str]:
        return [str(line["scene"]) for line in self.lines]

    @property
    def headline(self) -> Headline:
        """How the benchmark weighs its items; all alike where its headline is no mean of means."""
        stored = self.scores.get("headline")
        if stored is None:
            return Headline(np.zeros(len(self.lines), np.int64), np.ones(1))
        return Headline(np.array(stored["groups"], np.int64), np.array(stored["weights"], np.float64))

    def overall(self, by: str = "scene") -> Interval:
        """The headline with its 95 % interval, resampled by "scene" or by "item"."""
        return Interval(**self.scores["overall"][by])


def write_scores(folder: Path, benchmark: Benchmark, items: Sequence[Item]) -> Results:
    """Scores the lines of a finished run by the benchmark's summary and writes `scores.json`."""
    lines = read_answers(folder)
    scores = [Score(line["score"], line["parsed"], line["counted"], line["outside"]) for line in lines]
    counted = np.array([score.counted for score in scores])
    if not counted.any():
        raise ValueError(f"{folder}: the protocol {benchmark.protocol!r} counts none of {len(items)} replies; no score")
    headline = find_headline(benchmark, items, scores)
    summary = benchmark.summary(items, scores)
    found = {
        "summary": summary,
        "overall": _overall(summary[OVERALL], headline, scores, items),
        "chance": benchmark.summary(items, [Score(benchmark.chance(item), "") for item in items]),
        "blind": _blind(benchmark, items),
        "categories": _categories(items, scores, summary),
        "headline": None
        if headline is None
        else {"groups": headline.groups.tolist(), "weights": headline.weights.tolist()},
        "items": len(items),
        "scenes": len({item.scene for item in items}),
        "failed": dict(Counter(_reason(line["failure"]) for line in lines if line["failure"])),
        "unparsed": sum(line["parsed"] is None and not line["failure"] for line in lines),
        "not_counted": int((~counted).sum()),
        "outside": sum(line["outside"] > 0 for line in lines),
        "frames": sorted({line["frames"] for line in lines}),
        "seconds": round(sum(line["seconds"] for line in lines), 3),
        "versions": lines[-1]["versions"],
    }
    put(folder / SCORES, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return Results(folder, read_run(folder), lines, json.loads(json.dumps(found)))


def _overall(
    overall: float, headline: Headline | None, scores: Sequence[Score], items: Sequence[Item]
) -> dict[str, dict[str, float]]:
    """By scene and by item. A headline that is no mean of means gets the interval of the plain mean, moved to it."""
    kept = np.array([index for index, score in enumerate(scores) if score.counted], np.int64)
    values = np.array([score.value for score in scores], np.float64)
    scenes = [items[index].scene for index in kept]
    found = {}
    for by, clusters in (("scene", scenes), ("item", None)):
        if headline is None:
            interval = mean_interval(values[kept], clusters)
        else:
            interval = grouped_interval(values[kept], headline.groups[kept], headline.weights, clusters)
        moved = overall - interval.mean
        interval = Interval(overall, interval.low + moved, interval.high + moved, interval.n)
        found[by] = asdict(less_certain(interval, len(set(scenes)) if by == "scene" else len(kept)))
    return found


def _categories(
    items: Sequence[Item], scores: Sequence[Score], summary: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Each category's mean with its interval, in the summary's order as far as it names them."""
    found, order = {}, {name: place for place, name in enumerate(summary)}
    for category in sorted({item.category: None for item in items}, key=lambda name: order.get(name, len(order))):
        members = [i for i, item in enumerate(items) if item.category == category and scores[i].counted]
        if members:
            scenes = [items[i].scene for i in members]
            interval = mean_interval([scores[i].value for i in members], scenes)
            found[category] = asdict(less_certain(interval, len(set(scenes))))
    return found


def _blind(benchmark: Benchmark, items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Summaries of the benchmark's own baselines."""
    if not isinstance(benchmark, HasBlind):
        return {}
    place = {item.id: index for index, item in enumerate(benchmark.items())}
    return {
        name: benchmark.summary(items, [Score(values[place[item.id]], "") for item in items])
        for name, values in benchmark.blind().items()
    }


def _reason(failure: str) -> str:
    """Failures are counted by their first words: numbers and addresses in them differ each time."""
    return failure.split(":")[0][:60] if ":" in failure else failure[:60]
