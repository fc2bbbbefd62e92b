"""A named plan carried out in front of somebody: what is at hand, a bar while it runs, the funnel at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gemvlm.curation.annotator import Endpoint
from gemvlm.curation.engine import Engine
from gemvlm.curation.licences import LicenceRules
from gemvlm.curation.pipeline import Curated, curate
from gemvlm.curation.plan import Plan
from gemvlm.recipes import get_plan


def plan_of(
    recipe: str,
    roots: Sequence[str] = (),
    benchmarks: Sequence[Path] = (),
    limit: int | None = None,
    teacher: str | None = None,
    licences: Sequence[str] = (),
    annotator: str | None = None,
) -> Plan:
    """The plan of that name with its data located ("name=folder"). ValueError for what does not fit.

    `annotator` is "model@url".
    """
    plan = get_plan(recipe)
    if teacher is not None:
        plan = replace(plan, depth=replace(plan.depth, teacher=teacher))
    if annotator is not None:
        model, at, url = annotator.rpartition("@")
        if not (model and at):
            raise ValueError(
                f"--annotator {annotator}: write MODEL@URL, as in --annotator qwen@http://localhost:8000/v1"
            )
        plan = replace(plan, annotator=Endpoint(url, model))
    if licences and plan.licences is not None:
        known = tuple(licence for licence in licences if licence != "unknown")
        plan = replace(plan, licences=LicenceRules((*plan.licences.allowed, *known), len(known) < len(licences)))
    located: dict[str, str] = {}
    for entry in roots:
        name, equals, place = entry.partition("=")
        if not (name and equals and place):
            raise ValueError(f"--root {entry}: write NAME=FOLDER, as in --root sat=data/SAT")
        located[name] = place
    plan = replace(plan, benchmarks=tuple(str(path.absolute()) for path in benchmarks))
    return (plan if limit is None else replace(plan, limit=limit)).located(located)


def command_of(recipe: str, plan: Plan, limit: int | None, licences: Sequence[str] = ()) -> str:
    """The command that makes this set: without what changes no byte of it, and with no folder of this machine."""
    words = ["gemvlm", "curate", recipe]
    words += [] if limit is None else ["--limit", str(limit)]
    words += [word for use in plan.sources if use.root is not None for word in ("--root", f"{use.name}=FOLDER")]
    words += [word for path in plan.benchmarks for word in ("--benchmark", Path(path).name)]
    words += [] if plan.depth.teacher is None else ["--depth-teacher", plan.to_json()["depth"]["teacher"]]
    words += [] if plan.annotator is None else ["--annotator", f"{plan.annotator.model}@URL"]
    words += [word for licence in licences for word in ("--licence", licence)]
    return " ".join(words)


def show_plan(plan: Plan, console: Console) -> None:
    """The sources of a plan, and which of them can't be read since nobody has said where they are."""
    console.print(Text(f"{plan.name}: {plan.about}", "bold"))
    table = Table("source", "groups", "named by")
    for heading in ("published", "at most"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("data", overflow="fold")
    quotas, missing = plan.quotas(), plan.missing()
    for use in plan.sources:
        where = "made here" if use.located_by is None else "not given" if use in missing else str(use.root)
        quota = quotas.get(use.name)
        most = "–" if use in missing else "all" if quota is None else f"{quota:,}"
        count = "–" if use.count is None else f"{use.count:,}"
        groups = ", ".join(use.groups) if len(use.groups) < 3 else "all three"
        table.add_row(
            *map(Text, (use.name, groups, use.basis, count, most, where)), style="dim" if use in missing else ""
        )
    console.print(table)
    for use in plan.sources:
        console.print(Text.assemble((f"{use.name}: ", "bold"), use.note))
    if missing:
        names = " ".join(f"--root {use.name}=FOLDER" for use in missing)
        console.print(f"\nLeft out, since nobody has said where they are: {names}")


def make_set(plan: Plan, out: Path, engine: Engine, command: str, console: Console) -> Curated:
    """Carries the plan out with a progress bar and prints what came of it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    start = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        bars: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        made = curate(plan, out, engine, command, tell)
    seconds = time.perf_counter() - start
    table = Table("source", "what", "stage: reason")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    for source, what, reason, count, share in made.funnel.rows():
        table.add_row(*map(Text, (source, what, reason, f"{count:,}", share)), style="bold" if reason == "out" else "")
    console.print(table)
    samples = made.manifest.samples
    rate = (
        f"{samples / seconds:.1f} samples/s, {made.manifest.frames / seconds:.1f} views/s"
        if made.made
        else "already there"
    )
    console.print(
        f"{out}: {samples:,} samples, {made.manifest.turns:,} questions of {len(made.manifest.families)} families "
        f"({rate}); gemvlm inspect {out} shows it",
        soft_wrap=True,
    )
    return made
