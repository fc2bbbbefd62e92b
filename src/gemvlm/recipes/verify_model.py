"""One card for a checkpoint: what it is, what it may be used for, and whether it is better than nothing.

    gemvlm verify nano --out out/card                     # beside the same model with random weights
    gemvlm verify RUN/final --base RUN/stage-0 --out out/card

A few questions of every family and the depth of a few views (`suites.py`), beside a base model and blind baselines, and
a small probe: enough to see that weights, conventions and code belong together, too little to compare good models.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import get_args

from gemvlm.curation.questions import CORE_FAMILIES
from gemvlm.curation.sources.tabletop import LICENCE
from gemvlm.evaluation.answerers.gem import GemAnswerer
from gemvlm.evaluation.depth_report import BLIND as BLIND_DEPTH
from gemvlm.evaluation.depth_report import READINGS, DepthReport, Pixels
from gemvlm.evaluation.headline import OVERALL
from gemvlm.evaluation.probe import probe
from gemvlm.evaluation.probe_readers import GemReader, untrained
from gemvlm.evaluation.probe_report import ProbeReport
from gemvlm.evaluation.results import Results, write_scores
from gemvlm.evaluation.runner import run_benchmark
from gemvlm.evaluation.sample_benchmark import SampleBenchmark
from gemvlm.evaluation.verify import CheckpointFacts, checkpoint_facts
from gemvlm.figure import Report
from gemvlm.figure import Score as Bar
from gemvlm.inference import GemPipeline, load
from gemvlm.inference.load import checkpoint_folder
from gemvlm.recipes import get, names
from gemvlm.recipes.probe_model import RANDOM, add_probe, tabletop_frames
from gemvlm.recipes.recipe import TabletopData
from gemvlm.recipes.suites import suite_depth, tabletop_bench
from gemvlm.runtime import versions
from gemvlm.shards import MANIFEST
from gemvlm.shards.manifest import Manifest
from gemvlm.statistics import Interval

PAINTING_STEPS = 10
PROBE_VIEWS = 2


@dataclass(frozen=True, eq=False)
class _Measured:
    """What one model got on the small set."""

    name: str
    answers: Results
    depth: DepthReport


def verify(
    checkpoint: str,
    out: Path,
    *,
    base: str | None = None,
    scenes: int = 16,
    per_family: int = 8,
    probe_scenes: int = 40,
    seed: int = 0,
    device: str | None = None,
) -> Path:
    """Writes `card.json`, `card.md` and `card.html` to `out`; returns the page.

    `base` is the checkpoint to stand beside, by default the same model with random weights. ValueError if `checkpoint`
    is not a whole checkpoint of ours.
    """
    folder = checkpoint_folder(checkpoint)
    pipeline = load(checkpoint, device)
    other = load(base, device) if base else untrained(pipeline, seed)
    facts = checkpoint_facts(folder, pipeline, data_licences(folder, pipeline.card.recipe))
    suite = tabletop_bench(scenes=scenes, per_family=per_family, families=CORE_FAMILIES)
    # a checkpoint has a name of its own, so that two of one recipe do not share a folder of answers
    both = [("model", pipeline), ("base", other)]
    measured = [_measure(name, each, suite, out) for name, each in both]
    data = tabletop_frames(probe_scenes, PROBE_VIEWS, pipeline.card.target.get("height", 96))
    readers = [GemReader(pipeline), GemReader(other, "base" if base else RANDOM)]
    probed = probe(readers, data)
    base_words = f"the checkpoint {base}" if base else f"the same model with random weights (seed {seed})"
    return _write(facts, base_words, measured, probed, out)


def data_licences(folder: Path, recipe: str) -> dict[str, str]:
    """What a checkpoint's data may be used for: as its set states beside the run, or as its recipe makes it."""
    for place in (folder.parent / "data", folder / "data"):
        if (place / MANIFEST).is_file():
            counts = Manifest.from_folder(place).licences
            return {f"data, {count} samples": licence for licence, count in counts.items()}
    if recipe in names() and isinstance(get(recipe).data, TabletopData):
        return {"data": f"{LICENCE}: simulated by this package (recipe {recipe})"}
    return {}


def _measure(name: str, pipeline: GemPipeline, suite: SampleBenchmark, out: Path) -> _Measured:
    answerer = GemAnswerer(pipeline, name)
    asked = suite.written_for(answerer.convention)
    folder = out / "answers" / name
    run_benchmark(asked, asked.items(), answerer, folder)
    return _Measured(
        name, write_scores(folder, asked, asked.items()), suite_depth(suite, pipeline, steps=PAINTING_STEPS)
    )


def _write(facts: CheckpointFacts, base: str, measured: list[_Measured], probed: ProbeReport, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    own, other = measured
    questions, depth = _question_rows(own, other), _depth_rows(own, other)
    card = {
        "facts": facts.to_dict(),
        "base": base,
        "verified_with": versions(),
        "questions": {each.name: dict(each.answers.scores) for each in measured},
        "depth": {each.name: each.depth.to_dict() for each in measured},
        "probe": probed.to_dict(),
    }
    (out / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    lines = [f"# {facts.name}", "", *(f"- **Problem:** {problem}" for problem in facts.problems), ""]
    lines += ["| what | says |", "|---|---|", *(f"| {what} | {words} |" for what, words in facts.rows()), ""]
    lines += [f"Beside it as base: {base}.", "", "| questions | model | base | best blind |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in questions]
    lines += ["", "| depth, AbsRel | model | base | best blind |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in depth]
    lines += ["", probed.to_markdown(), "| file | bytes | sha256 |", "|---|---|---|"]
    lines += [f"| {file.name} | {file.bytes} | {file.sha256} |" for file in facts.files]
    (out / "card.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return _page(facts, base, measured, questions, depth, probed).write(out / "card.html")


def _page(
    facts: CheckpointFacts,
    base: str,
    measured: list[_Measured],
    questions: list[tuple[str, ...]],
    depth: list[tuple[str, ...]],
    probed: ProbeReport,
) -> Report:
    own, other = measured
    page = Report(f"Checkpoint {facts.name}", f"{facts.recipe}, stage {facts.stage}, step {facts.step}")
    if facts.problems:
        page.text("\n".join(f"- **Problem:** {problem}" for problem in facts.problems))
    page.heading("What it is")
    page.table(["What", "Says"], facts.rows())
    page.heading("Is it better than nothing?")
    page.text(
        f"A small fixed set: enough to see that weights, conventions and code belong together, too little to compare "
        f"good models. Base: {base}."
    )
    overall = own.answers.overall()
    blind = {name: summary["overall"] for name, summary in own.answers.scores["blind"].items()}
    beside = {"base": other.answers.overall().mean, **blind}
    page.scores(
        [Bar("all questions", overall.mean, overall.low, overall.high, beside, count=overall.n)],
        "Mean over families, 95 % intervals by scene.",
    )
    page.table(["Questions", "Model", "Base", "Best blind"], questions)
    page.table(["Depth, AbsRel", "Model", "Base", "Best blind"], depth, "Relative error of depth: less is better.")
    add_probe(page, probed)
    page.heading("Files")
    page.table(
        ["File", "Bytes", "SHA-256", "As listed"],
        [
            [file.name, file.bytes, f"`{file.sha256}`", {True: "yes", False: "no", None: "not listed"}[file.listed]]
            for file in facts.files
        ],
    )
    return page


def _question_rows(own: _Measured, other: _Measured) -> list[tuple[str, ...]]:
    """Parts of which nothing is known but their mean (tasks are means of families) stand without an interval."""
    base = other.answers.scores["summary"]
    known = {OVERALL: own.answers.overall()}
    known |= {part: Interval(**row) for part, row in own.answers.scores["categories"].items()}
    rows: list[tuple[str, ...]] = []
    for part, value in own.answers.scores["summary"].items():
        blind = {name: summary[part] for name, summary in own.answers.scores["blind"].items()}
        best = max(blind, key=lambda name: blind[name])
        rows.append((part, str(known.get(part, f"{value:.3f}")), f"{base[part]:.3f}", f"{blind[best]:.3f} ({best})"))
    return rows


def _depth_rows(own: _Measured, other: _Measured) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for pixels, reading in product(reversed(get_args(Pixels)), READINGS):
        methods = own.depth.methods(pixels, reading)
        if "model" in methods:
            blind = {name: own.depth.mean(name, pixels, reading).mean for name in BLIND_DEPTH if name in methods}
            best = min(blind, key=lambda name: blind[name])
            mean, base = (str(each.depth.mean("model", pixels, reading)) for each in (own, other))
            rows.append((f"{pixels.removesuffix('s')} pixels, {reading}", mean, base, f"{blind[best]:.3f} ({best})"))
    return rows
