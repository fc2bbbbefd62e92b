"""One page about a set: what it holds, what a blind reader would score, what was left out, and samples to look at."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from gemvlm.curation.facts import Facts, FamilyFacts
from gemvlm.curation.inspection import Inspection, look_through
from gemvlm.evaluation.shortcuts import shortcut_scores
from gemvlm.figure import colour_depth
from gemvlm.figure.gallery import Card, Exchanged, GalleryPage, Mark, Shown, area_picture, thumbnail
from gemvlm.sample import Box, Frame, Place, Point, Region, Sample, Turn
from gemvlm.shards import SampleError, ShardReader

FRAMES_SHOWN = 6
LONGEST_TEXT = 2000
ROWS_SHOWN = 200
LEAST_TURNS = 20
"""Of a family: with fewer, a baseline's score is chance."""


def inspect_set(folder: Path, out: Path, examples: int = 240, seed: int = 0) -> Path:
    """Writes the page `out` about the set in `folder`. ValueError if it is no set."""
    reader = ShardReader(folder)
    found = look_through(reader, examples, seed, lambda indices: track(indices, "reading records", transient=True))
    cards, depths = [], DepthValues()
    for index in track(found.chosen, "drawing samples", transient=True):
        try:
            sample = reader[index]
        except SampleError as error:
            found.unreadable.append(str(error)[:500])
            continue
        depths.add(sample)
        cards.append(sample_card(sample))
    page = GalleryPage(str(found.card.get("name", folder.name)), str(found.card.get("about", "")))
    _head(page, found)
    page.heading("Look")
    page.text(
        "Drawn evenly from all sources and families. A question that is chosen shows its marks, in the colours of its "
        "words; of several frames the words say which one they mean, and the marks are drawn in all."
    )
    page.browser("samples", cards)
    _balances(page, found.facts)
    _shortcuts(page, found)
    _depths(page, found.facts, depths)
    _terms(page, found.facts)
    _losses(page, found, folder)
    _pictures(page, found.facts)
    return page.write(out)


def sample_card(sample: Sample) -> Card:
    """A sample as a card of the gallery; of many frames a few, evenly chosen, the first and the last among them."""
    last = len(sample.frames) - 1
    shown = sorted({round(i * last / (FRAMES_SHOWN - 1)) for i in range(FRAMES_SHOWN)}) if sample.frames else []
    many = len(sample.frames) > 1
    note = f"{sample.source} · scene {sample.scene} · {sample.provenance.licence}"
    note += f" · {len(sample.frames)} frames" if many else ""
    return Card(
        title=_cut(sample.id),
        note=_cut(note),
        pictures=tuple(_shown(sample.frames[i], f"frame {i + 1}" if many else "") for i in shown),
        talk=tuple(map(_exchanged, sample.turns)),
        tags={
            "source": (_cut(sample.source),),
            "family": tuple(sorted({_cut(turn.family) for turn in sample.turns})),
            "task": tuple(sorted({turn.task for turn in sample.turns})),
            "frames": ("several" if many else "one",),
        },
    )


def _shown(frame: Frame, name: str) -> Shown:
    depth, notes = "", [name] if name else []
    if frame.time_s is not None:
        notes.append(f"{frame.time_s:.1f} s")
    if frame.depth is not None:
        known = frame.depth.values[frame.depth.valid]
        depth = thumbnail(colour_depth(frame.depth.values, frame.depth.valid))
        low, high = np.percentile(known, (2, 98)) if known.size else (0.0, 0.0)
        unit = f" {frame.depth.unit}" if frame.depth.unit else ""
        made = frame.depth.origin.provenance if frame.depth.origin else frame.depth.source
        notes.append(f"{frame.depth.kind}, {made}: {low:.2f} to {high:.2f}{unit}, {frame.depth.valid.mean():.0%} valid")
    return Shown(thumbnail(frame.image), depth, _cut(" · ".join(notes)))


def _exchanged(turn: Turn) -> Exchanged:
    notes = [turn.kind.replace("_", "/")]
    notes += [f"options: {', '.join(turn.options)}"] if turn.options else []
    notes += [f"± {turn.tolerance:.0%}"] if turn.tolerance else []
    path = turn.kind == "trajectory" and len(turn.places) > 1
    marks = _path(turn.places) if path else tuple(map(_mark, turn.places))
    regions = (*((turn.region,) if turn.region else ()), *turn.regions)
    area = _area(regions)
    note = _cut(" · ".join(notes))
    return Exchanged(_cut(turn.question), _cut(turn.answer), _cut(turn.family), note, marks, area)


def _mark(place: Place) -> Mark:
    if isinstance(place, Box):
        return Mark("box", (place.x0, place.y0, place.x1, place.y1))
    return Mark("point", (place.x, place.y))


def _path(places: Sequence[Place]) -> tuple[Mark, ...]:
    points = [value for place in places if isinstance(place, Point) for value in (place.x, place.y)]
    return (Mark("path", tuple(points)), *(_mark(place) for place in places if isinstance(place, Box)))


def _area(regions: Sequence[Region]) -> str:
    """Where a pointing answer may lie; "" if nothing is said, or if regions of several sizes say different things."""
    sizes = {(region.height, region.width) for region in regions}
    if len(sizes) != 1:
        return ""
    return area_picture(np.any([region.to_mask() for region in regions], axis=0))


class DepthValues:
    """Statistics of the depth of the samples that are shown."""

    def __init__(self) -> None:
        self.frames = 0
        self._rows: dict[tuple[str, str], list[tuple[float, ...]]] = {}

    def add(self, sample: Sample) -> None:
        for frame in sample.frames:
            if frame.depth is None or not frame.depth.valid.any():
                continue
            self.frames += 1
            known = np.percentile(frame.depth.values[frame.depth.valid], (2, 50, 98))
            row = (float(frame.depth.valid.mean()), *map(float, known))
            self._rows.setdefault((sample.source, frame.depth.kind), []).append(row)

    def table(self) -> list[tuple[object, ...]]:
        """By source and kind: frames, share of valid pixels, and medians of the 2nd, 50th and 98th percentile."""
        return [
            (
                source,
                kind,
                len(rows),
                f"{np.mean([row[0] for row in rows]):.1%}",
                *map(float, np.median(rows, axis=0)[1:]),
            )
            for (source, kind), rows in sorted(self._rows.items())
        ]


def _head(page: GalleryPage, found: Inspection) -> None:
    facts = found.facts
    with_depth = facts.frames - facts.depths[("none", "", "", "", "")]
    share = f"{with_depth / facts.frames:.0%} of the frames" if facts.frames else "no frames"
    page.facts(
        [
            ("samples", f"{facts.samples:,}", f"{facts.scenes:,} scenes"),
            ("questions", f"{facts.turns:,}", f"{len(facts.families)} families"),
            ("frames", f"{facts.frames:,}", f"{facts.views:,} with a camera"),
            ("with depth", f"{with_depth:,}", share),
            ("unreadable", f"{len(found.unreadable):,}", "records or files"),
        ]
    )
    if command := str(found.card.get("command", "")):
        page.text(f"Made by `{command.replace('`', '')}`")
    for line in found.unreadable[:20]:
        page.text(f"- {line}")


def _balances(page: GalleryPage, facts: Facts) -> None:
    page.heading("Families and their answers")
    page.text("A family that one answer or one letter fits too often can be answered without looking.")
    families = sorted(facts.families.items(), key=lambda item: (-item[1].turns, item[0]))
    rows = [
        (name, _names(family.tasks), _names(family.kinds), f"{family.turns:,}", _commonest(family), _letters(family))
        for name, family in families[:ROWS_SHOWN]
    ]
    headings = ("family", "task", "kind", "questions", "commonest answer", "letters")
    page.table(headings, rows, _more(len(families)))


def _commonest(family: FamilyFacts) -> str:
    if not family.answers:
        return "–"
    answer, count = min(family.answers.items(), key=lambda item: (-item[1], item[0]))
    return f"{_cut(answer, 40)} {count / family.turns:.0%}"


def _letters(family: FamilyFacts) -> str:
    total = family.letters.total()
    shares = (f"{letter}\N{NO-BREAK SPACE}{count / total:.0%}" for letter, count in sorted(family.letters.items()))
    return " ".join(shares) or "–"


def _shortcuts(page: GalleryPage, found: Inspection) -> None:
    page.heading("What a blind reader would score")
    page.text(
        "Baselines that see no picture, fitted on half of the scenes and scored on the other half, up to 1,000 "
        "questions of a family. **chance** draws an option, **majority** says the commonest answer, **text only** "
        "reads the words; **best cue** is one measurement in the image that needs no understanding. In per cent."
    )
    rows: list[tuple[object, ...]] = []
    for family, turns in list(found.turns.items())[:ROWS_SHOWN]:
        rows.append(_shortcut_row(family, turns))
    page.table(("family", "questions", "chance", "majority", "text only", "best cue"), rows, _more(len(found.turns)))


def _shortcut_row(family: str, turns: Sequence[tuple[str, Turn]]) -> tuple[object, ...]:
    halves: tuple[list[Turn], list[Turn]] = ([], [])
    for scene, turn in turns:
        halves[zlib.crc32(scene.encode("utf-8", "replace")) % 2].append(turn)
    train, test = halves
    none = ("–", "–", "–")
    if min(len(train), len(test)) < LEAST_TURNS or len({turn.kind for turn in (*train, *test)}) > 1:
        return (family, len(turns), *none, "too few, or of several kinds")
    try:
        scores = {name: float(values.mean()) for name, values in shortcut_scores(train, test).items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        return (family, len(turns), *none, f"not measured: {_cut(str(error), 80)}")
    named = [f"{100 * scores[name]:.0f}" if name in scores else "–" for name in ("chance", "majority", "text_only")]
    cues = {name: value for name, value in scores.items() if name not in ("chance", "majority", "text_only")}
    best = max(cues, key=lambda name: (cues[name], name), default=None)
    return (family, len(turns), *named, "–" if best is None else f"{100 * cues[best]:.0f} ({best})")


def _depths(page: GalleryPage, facts: Facts, depths: DepthValues) -> None:
    page.heading("Depth")
    rows = [(*(word or "–" for word in key), f"{count:,}") for key, count in sorted(facts.depths.items())[:ROWS_SHOWN]]
    page.table(
        ("kind", "unit", "provenance", "made by", "its licence", "frames"), rows, "All frames, by who made their depth."
    )
    caption = (
        f"Measured on the {depths.frames:,} frames shown above; medians over frames of percentiles within a frame."
    )
    page.table(
        ("source", "kind", "frames", "valid pixels", "2nd percentile", "median", "98th"), depths.table(), caption
    )


def _terms(page: GalleryPage, facts: Facts) -> None:
    page.heading("Sources and licences")
    rows = [
        (name, _cut(licence), _names(source.versions), _names(source.splits), f"{count:,}", f"{source.turns:,}")
        for name, source in sorted(facts.sources.items())[:ROWS_SHOWN]
        for licence, count in sorted(source.licences.items())
    ]
    page.table(("source", "licence", "version", "split", "samples", "questions of the source"), rows)


def _losses(page: GalleryPage, found: Inspection, folder: Path) -> None:
    if found.funnel is None:
        return
    page.heading("What was left out")
    page.text("Every candidate is counted; `rejections.jsonl` names each one.")
    rows = [(source, what, reason, f"{count:,}", share) for source, what, reason, count, share in found.funnel.rows()]
    page.table(("source", "what", "stage: reason", "count", "share"), rows[:ROWS_SHOWN], _more(len(rows)))
    cards = []
    for fields in found.rejected:
        try:
            content = (folder / fields["picture"]).read_bytes()
        except OSError as error:
            found.unreadable.append(str(error))
            continue
        cards.append(_rejected_card(fields, content))
    if cards:
        page.subheading("Some of them")
        page.browser("rejections", cards)


def _rejected_card(fields: dict[str, str], content: bytes) -> Card:
    reason = f"{fields.get('stage', '')}: {fields.get('reason', '')}"
    tags = {"source": (_cut(fields.get("source", "")),), "reason": (_cut(reason),)}
    return Card(_cut(reason), _cut(fields.get("detail", ""), 240), (Shown(_jpeg(content)),), tags=tags)


def _jpeg(content: bytes) -> str:
    from base64 import b64encode

    return "data:image/jpeg;base64," + b64encode(content).decode()


def _pictures(page: GalleryPage, facts: Facts) -> None:
    page.heading("Pictures")
    common = facts.sizes.most_common(12)
    page.table(
        ("width x height", "frames"), [(size, f"{count:,}") for size, count in common], _more(len(facts.sizes), 12)
    )
    rows = [(count, f"{samples:,}") for count, samples in sorted(facts.frames_per_sample.items())[:40]]
    page.table(("frames of a sample", "samples"), rows)


def _names(counts: Counter[str]) -> str:
    """What is counted, the commonest first."""
    ordered: Iterable[str] = (name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return _cut(", ".join(filter(None, ordered)) or "–", 80)


def _cut(text: str, length: int = LONGEST_TEXT) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _more(count: int, shown: int = ROWS_SHOWN) -> str:
    return f"The first {shown} of {count:,}." if count > shown else ""
