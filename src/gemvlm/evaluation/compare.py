"""Two models' results → which is better, as text and as a page: what `gemvlm compare` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gemvlm.evaluation.answer_files import RUN, put
from gemvlm.evaluation.gaps import compare_results, corrected
from gemvlm.evaluation.headline import OVERALL
from gemvlm.evaluation.results import Results
from gemvlm.evaluation.table import gap_table, to_markdown
from gemvlm.figure import Report


def compare_runs(a: Sequence[str], b: Sequence[str], out: Path | None = None) -> str:
    """Compares two models, each given as the folders of its results: one run, or one for every training of it.

    A folder is that of one benchmark's results or of all results of a model. Returns Markdown; `out` gets it as
    `compare.md`, and `compare.json` and `compare.html`. ValueError if they have no benchmark in common, or if a
    benchmark's items differ.
    """
    sides = [[_read_all(Path(folder)) for folder in side] for side in (a, b)]
    if not all(sides):
        raise ValueError("compare: give at least one folder of results for A and one for B")
    shared = [name for name in sides[0][0] if all(name in found for side in sides for found in side)]
    if not shared:
        listed = [f"{folder}: {', '.join(found)}" for folder, found in zip([*a, *b], sides[0] + sides[1], strict=True)]
        raise ValueError(f"these results have no benchmark and protocol in common ({'; '.join(listed)})")
    gaps = [
        gap
        for name in shared
        for gap in compare_results([found[name] for found in sides[0]], [found[name] for found in sides[1]])
    ]
    gaps = corrected([gap for gap in gaps if gap.part == OVERALL]) + corrected([g for g in gaps if g.part != OVERALL])
    title = f"A: {_named(sides[0], shared[0])}, B: {_named(sides[1], shared[0])}"
    tables = [
        (f"{'Headlines' if whole else 'Parts'}", gap_table(chosen))
        for whole in (True, False)
        if (chosen := [gap for gap in gaps if (gap.part == OVERALL) == whole])
    ]
    notes = _notes(len(a), len(b))
    lines = [f"# {title}", ""]
    for name, table in tables:
        lines += [f"## {name}", "", *to_markdown(table), ""]
    text = "\n".join([*lines, notes, ""])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        put(out / "compare.md", text)
        plain = [{**asdict(gap), "verdict": gap.verdict} for gap in gaps]
        put(out / "compare.json", json.dumps({"a": list(a), "b": list(b), "gaps": plain}, indent=1) + "\n")
        report = Report("Is A better than B?", title)
        for name, table in tables:
            report.heading(name)
            report.table(*table)
        report.text(notes)
        report.write(out / "compare.html")
    return text


def _read_all(folder: Path) -> dict[str, Results]:
    """Results by benchmark and protocol: of the folder itself, or of those in it."""
    folders = [folder] if (folder / RUN).is_file() else sorted(path.parent for path in folder.glob(f"*/{RUN}"))
    if not folders:
        raise ValueError(f"{folder}: no results of an evaluation here; give OUT/MODEL of `gemvlm evaluate --out OUT`")
    found: dict[str, Results] = {}
    for path in folders:
        results = Results.read(path)
        found[results.benchmark] = results
    return found


def _named(side: Sequence[dict[str, Results]], benchmark: str) -> str:
    names = list(dict.fromkeys(found[benchmark].model for found in side))
    return " + ".join(names) + (f" ({len(side)} trainings)" if len(side) > 1 else "")


def _notes(a: int, b: int) -> str:
    scatter = f"scenes and trainings ({a} and {b})."
    if a == b == 1:
        scatter = "scenes. One training each: what another seed would give is not in these intervals."
    return (
        f"Differences are of the same items; intervals resample {scatter} “Could have seen” is the smallest true "
        "difference that would be found four times of five: a smaller one may exist and stay unseen. “p, Holm” is "
        "corrected for all that were asked, headlines and parts apart; the verdict goes by it. Replies that a protocol "
        "does not count are 0 here."
    )
