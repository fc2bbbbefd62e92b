"""Results of several models as tables, in Markdown and on a page: every number beside what it must be compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gemvlm.evaluation.gaps import Gap, compare_results, corrected
from gemvlm.evaluation.headline import OVERALL
from gemvlm.evaluation.published_scores import published_for
from gemvlm.evaluation.results import Results
from gemvlm.figure import Report
from gemvlm.figure.families import family_plot
from gemvlm.figure.report import Score as Bar

DISTANCES = ("frechet_distance", "hausdorff_distance", "rmse")
"""Parts of a summary that are no shares but distances, in widths or heights of the picture."""

Table = tuple[list[str], list[list[str]]]
"""Headings and rows."""


def by_benchmark(results: Sequence[Results]) -> dict[str, list[Results]]:
    """Results grouped by benchmark and protocol, in order."""
    groups: dict[str, list[Results]] = {}
    for found in results:
        groups.setdefault(found.benchmark, []).append(found)
    return groups


def overall_table(results: Sequence[Results]) -> Table:
    """One row per model of one benchmark: the score, how sure it is, and what went wrong on the way to it."""
    told = {
        "overall, 95 % by scene": [_percent(r.overall().mean, r.overall().low, r.overall().high) for r in results],
        "95 % by item": [f"{100 * r.overall('item').low:.1f}–{100 * r.overall('item').high:.1f}" for r in results],
        "chance": [f"{100 * r.scores['chance'][OVERALL]:.1f}" for r in results],
        "failed": [_count(sum(r.scores["failed"].values()), r.scores["items"]) for r in results],
        "not read": [_count(r.scores["unparsed"], r.scores["items"]) for r in results],
        "other convention": [_count(r.scores["outside"], r.scores["items"]) for r in results],
        "not counted": [_count(r.scores["not_counted"], r.scores["items"]) for r in results],
        "frames": ["–".join(map(str, dict.fromkeys((r.scores["frames"][0], r.scores["frames"][-1])))) for r in results],
        "s per item": [f"{r.scores['seconds'] / r.scores['items']:.2f}" for r in results],
    }
    seldom = ("other convention", "not counted")
    headings = [name for name, cells in told.items() if name not in seldom or any(cell != "0" for cell in cells)]
    rows = [[found.model, *(told[name][index] for name in headings)] for index, found in enumerate(results)]
    return ["model", *headings], rows


def part_table(results: Sequence[Results]) -> Table:
    """Sub-scores by row, models by column; then chance, the benchmark's blind baselines, and what others report."""
    parts = list(dict.fromkeys(part for found in results for part in found.scores["summary"]))
    published = published_for(str(results[0].run["benchmark"]))
    others = list(dict.fromkeys(score.model for score in published))
    blind = [name for name in results[0].scores["blind"] if name != "chance"]
    headings = ["score, %", *(found.model for found in results), "chance", *(f"blind: {name}" for name in blind)]
    headings += [f"{other} (reported)" for other in others]
    rows = []
    for part in parts:
        lower = part in DISTANCES
        columns = [found.scores["summary"] for found in results]
        columns += [results[0].scores["chance"], *(results[0].scores["blind"][name] for name in blind)]
        row = [f"{part} (a distance: lower is better)" if lower else part]
        row += [
            _cell(None if lower and column is results[0].scores["chance"] else column.get(part), lower)
            for column in columns
        ]
        reported = {score.model: score for score in published if score.part == part}
        row += [f"{reported[other].score:.1f}" if other in reported else "" for other in others]
        rows.append(row)
    return headings, rows


def gap_table(gaps: Sequence[Gap]) -> Table:
    """Differences with everything that is needed to believe them, or not."""
    headings = ["benchmark", "part", "A", "B", "A − B, 95 %", "verdict", "could have seen", "p, Holm", "p", "sign test"]
    return headings, [[gap.benchmark, gap.part, *_gap_cells(gap)] for gap in gaps]


def markdown_tables(results: Sequence[Results]) -> str:
    """The whole document."""
    lines: list[str] = []

    def add(table: Table, caption: str) -> None:
        lines.extend([*to_markdown(table), "", caption, ""])

    for name, group in by_benchmark(results).items():
        lines += [f"## {name}", ""]
        _each(group, add)
    return "\n".join(lines).rstrip() + "\n"


def add_tables(report: Report, group: Sequence[Results]) -> None:
    """One benchmark's tables, bars and plot on a page."""
    report.scores([_bar(found) for found in group], "The headline of each model; ticks are blind baselines.")
    _each(group, lambda table, caption: report.table(*table, caption))
    if any(len(found.scores["categories"]) > 1 for found in group):
        families = list(dict.fromkeys(name for found in group for name in found.scores["categories"]))
        models = {
            found.model: {
                name: (row["mean"], row["low"], row["high"]) for name, row in found.scores["categories"].items()
            }
            for found in group
        }
        chance = {name: value for name, value in group[0].scores["chance"].items() if name in families}
        report.figure(family_plot(families, models, chance), "Scores by category.")


def to_markdown(table: Table) -> list[str]:
    """Lines of a Markdown table."""
    headings, rows = table
    return [_row(headings), _row(["---"] * len(headings)), *(_row(row) for row in rows)]


def _each(group: Sequence[Results], add: Callable[[Table, str], None]) -> None:
    first = group[0].scores
    counts = f"{first['items']} items of {first['scenes']} scenes"
    add(
        overall_table(group),
        f"{counts}. What failed or could not be read counts as wrong.{_explained(group)}",
    )
    for found in group:
        if found.scores["failed"]:
            reasons = "; ".join(f"{count} × {reason}" for reason, count in found.scores["failed"].items())
            add((["model", "failures"], [[found.model, reasons]]), "Items that got no reply, and why.")
    published = published_for(str(group[0].run["benchmark"]))
    sources = "; ".join(f"{s.model}, {s.part}: {s.source} ({s.confidence})" for s in published)
    add(part_table(group), f"Reported by others under their own harness: {sources}." if sources else "Sub-scores.")
    gaps = corrected([gap for other in group[1:] for gap in compare_results([group[0]], [other], parts=False)])
    if gaps:
        headings = ["B", "A, %", "B, %", *gap_table([])[0][4:]]
        rows = [[other.model, *_gap_cells(gap)] for other, gap in zip(group[1:], gaps, strict=True)]
        add(
            (headings, rows),
            f"A is {group[0].model}, on the same items as each other one; the verdict goes by Holm's p.",
        )


def _explained(group: Sequence[Results]) -> str:
    """What the columns say that are there only where there is something to say."""
    told = ""
    if any(found.scores["outside"] for found in group):
        told += " Other convention: replies with places that the model's convention excludes."
    if any(found.scores["not_counted"] for found in group):
        told += " Not counted: replies that this protocol leaves out."
    return told


def _gap_cells(gap: Gap) -> list[str]:
    difference, interval = gap.difference, gap.difference.interval
    return [
        f"{100 * gap.a:.1f}", f"{100 * gap.b:.1f}", _percent(interval.mean, interval.low, interval.high, sign=True),
        gap.verdict, _seen(difference.detectable), _p_value(gap.p_of_all), _p_value(difference.p_value),
        "" if gap.sign_p is None else _p_value(gap.sign_p),
    ]  # fmt: skip


def _seen(detectable: float) -> str:
    """Where no item differs from the others nothing is known of how they scatter."""
    return f"±{100 * detectable:.1f}" if detectable > 0 else "–"


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _bar(found: Results) -> Bar:
    overall, scores = found.overall(), found.scores
    blind = {name: summary[OVERALL] for name, summary in scores["blind"].items() if name != "chance"}
    lost = sum(scores["failed"].values())
    note = f"{lost} failed" if lost else ""
    return Bar(found.model, overall.mean, overall.low, overall.high, {"chance": scores["chance"][OVERALL], **blind},
               count=overall.n, note=note)  # fmt: skip


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _percent(mean: float, low: float, high: float, sign: bool = False) -> str:
    plus = "+" if sign else ""
    return f"{100 * mean:{plus}.1f} [{100 * low:{plus}.1f}, {100 * high:{plus}.1f}]"


def _count(number: int, of: int) -> str:
    return f"{number} ({number / of:.0%})" if number else "0"


def _cell(value: float | None, distance: bool = False) -> str:
    return "" if value is None else f"{value:.3f}" if distance else f"{100 * value:.1f}"


def as_json(results: Sequence[Results]) -> list[Mapping[str, object]]:
    """What programs read: everything of `scores.json` but the weights, and who answered."""
    return [
        {"run": dict(found.run), **{key: value for key, value in found.scores.items() if key != "headline"}}
        for found in results
    ]
