"""Models and benchmarks → a folder of results, tables, and one page: what `gemvlm evaluate` does.

OUT/MODEL/BENCHMARK/   run.json, answers.jsonl, scores.json
OUT/tables.md, tables.json, report.html
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemvlm.evaluation.answer_files import ANSWERS, put
from gemvlm.evaluation.answerers import Answerer, open_answerer
from gemvlm.evaluation.benchmark import Benchmark, Convention, Item, WritesPlaces
from gemvlm.evaluation.gallery import add_gallery, wrong_items
from gemvlm.evaluation.results import Results, write_scores
from gemvlm.evaluation.runner import Share, chosen, run_benchmark
from gemvlm.evaluation.table import add_tables, as_json, by_benchmark, markdown_tables
from gemvlm.figure import Report
from gemvlm.runtime import detect, get_log

SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True, eq=False)
class _Asked:
    """A benchmark as one model was asked it."""

    folder: Path
    benchmark: Benchmark
    items: Sequence[Item]
    convention: Convention

    @property
    def is_finished(self) -> bool:
        return (self.folder / ANSWERS).is_file()


def evaluate_models(
    models: Sequence[str],
    benchmarks: Sequence[Benchmark],
    out: Path,
    *,
    device: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    retry_failed: bool = False,
    gallery: int = 24,
) -> Path | None:
    """Asks every model (see `answerers/named.py`) every benchmark, and writes the page of all; returns its path.

    Called again it goes on where it stopped. Started by a launcher as several processes, they share the items, and the
    last to finish writes the page: None for the others. `limit` asks so many items of each benchmark, spread evenly;
    `gallery` shows so many wrong replies of each model and benchmark. ValueError for a model that can't be opened, or
    for two of one name.
    """
    runtime = detect(device)
    share = Share(runtime.rank, runtime.world)
    asked: list[_Asked] = []
    names: dict[str, str] = {}
    for model in models:
        answerer = open_answerer(model, device, seed)
        folder = slug(answerer.name)
        if folder in names:
            raise ValueError(f"{names[folder]} and {model} would both be called {folder!r}; tell them apart: ?name=...")
        names[folder] = model
        for benchmark in benchmarks:
            there = out / folder / slug(f"{benchmark.name}-{benchmark.protocol}")
            asked.append(_ask(benchmark, answerer, there, share, limit, retry_failed))
    # another process may have finished meanwhile what this one left unfinished; the last of all sees everything
    if not all(each.is_finished for each in asked):
        return None
    results = [write_scores(each.folder, each.benchmark, each.items) for each in asked]
    return _write_page(asked, results, out, gallery)


def _ask(
    benchmark: Benchmark, answerer: Answerer, folder: Path, share: Share, limit: int | None, retry_failed: bool
) -> _Asked:
    written = benchmark.written_for(answerer.convention) if isinstance(benchmark, WritesPlaces) else benchmark
    items = chosen(written.items(), limit)
    told = _progress(f"{answerer.name} on {written.name}")
    if run_benchmark(written, items, answerer, folder, share=share, retry_failed=retry_failed, progress=told):
        scores = write_scores(folder, written, items).scores
        if failed := scores["failed"]:
            reasons = "; ".join(f"{count} x {reason}" for reason, count in failed.items())
            get_log().warning("%s on %s: %d items got no reply (%s) and count as wrong; --retry-failed asks them again",
                              answerer.name, written.name, sum(failed.values()), reasons)  # fmt: skip
    return _Asked(folder, written, items, answerer.convention)


def _write_page(asked: Sequence[_Asked], results: Sequence[Results], out: Path, gallery: int) -> Path:
    """`tables.md`, `tables.json` and `report.html`."""
    put(out / "tables.md", markdown_tables(results))
    put(out / "tables.json", json.dumps(as_json(results), indent=1, ensure_ascii=False) + "\n")
    report = Report("Evaluation", "Every score beside chance, what else was measured, and what others report.")
    for name, group in by_benchmark(results).items():
        report.heading(name)
        add_tables(report, group)
        for each, found in zip(asked, results, strict=True):
            guesses = found.run["answerer"].get("kind") in ("random", "majority")
            wrong = [] if guesses or found.benchmark != name else wrong_items(found.lines, gallery)
            if wrong:
                report.subheading(f"{found.model}: {len(wrong)} of its wrong replies")
                items = {item.id: item for item in each.items}
                add_gallery(report, each.benchmark, items, wrong, each.convention)
    return report.write(out / "report.html")


def slug(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:120] or "model"


def _progress(name: str) -> Callable[[int, int], None]:
    """A line in the log now and then, and at the end."""
    start = last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == of or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            get_log().info("%s: %d of %d, %.2f s each", name, done, of, (now - start) / done)

    return tell
