"""The one style of HTML report: a single file that opens anywhere, offline, on a phone, in the dark and on paper.

    report = Report("GEM in ten minutes", "two CPU cores, fresh weights")
    report.heading("Depth")
    report.text("Pixels of **objects** only; see `docs/results.md`.")
    report.write("report.html")

Every text is escaped, so words of a user or of a model are shown, never run.
"""

from __future__ import annotations

import base64
import html
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from gemvlm.figure.pictures import png_bytes

AnyPicture = bytes | np.ndarray | Image.Image
"""A PNG or SVG file's bytes, a uint8 array (H, W, 3), or a PIL image."""

SMALL_PICTURE = 256
"""Arrays up to this side are enlarged as whole pixels: what a small model sees is shown as it is, not smoothed."""


@dataclass(frozen=True)
class Score:
    """One measured number with its 95 % interval, the blind baselines that it must beat, and the goal that was set."""

    name: str
    value: float
    low: float
    high: float
    baselines: Mapping[str, float] = field(default_factory=dict)
    goal: float | None = None
    count: int | None = None
    better: Literal["higher", "lower"] = "higher"
    note: str = ""

    def reached(self) -> bool | None:
        """True if the value stands at the goal or beyond; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal


@dataclass(frozen=True)
class Exchange:
    """A question, what the model said, and, where they are known, the true answer and whether the reply was right."""

    question: str
    answer: str
    truth: str | None = None
    right: bool | None = None


class Report:
    """Grows from top to bottom; each call adds one block. `write` makes the file."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._blocks: list[str] = []
        self._sections: list[str] = []

    def subheading(self, text: str) -> None:
        """A part of a section."""
        self._blocks.append(f"<h3>{html.escape(text)}</h3>")

    def heading(self, text: str) -> None:
        """A section; sections are listed at the top of the page."""
        self._sections.append(text)
        self._blocks.append(f'<h2 id="s{len(self._sections)}">{html.escape(text)}</h2>')

    def text(self, text: str) -> None:
        """Paragraphs parted by empty lines, "- " lists, **bold** and `code`."""
        self._blocks.extend(_paragraph(part) for part in re.split(r"\n\s*\n", text.strip()))

    def facts(self, facts: Sequence[tuple[str, str, str]]) -> None:
        """Large numbers in a row: (label, value, note)."""
        tiles = "".join(
            f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd><small>{html.escape(note)}</small></div>"
            for label, value, note in facts
        )
        self._blocks.append(f'<dl class="facts">{tiles}</dl>')

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> None:
        """A table; cells that look like numbers stand to the right. Floats are printed with three digits."""
        cells = [[_cell_text(cell) for cell in row] for row in rows]
        for number, row in enumerate(cells):
            if len(row) != len(headers):
                raise ValueError(f"report table: row {number} has {len(row)} cells for {len(headers)} headers")
        numeric = [bool(cells) and all(_looks_numeric(row[i]) for row in cells) for i in range(len(headers))]
        mark = [' class="number"' if flag else "" for flag in numeric]
        head = "".join(f"<th{m}>{html.escape(text)}</th>" for m, text in zip(mark, headers, strict=True))
        body = "".join(
            "<tr>" + "".join(f"<td{m}>{_inline(text)}</td>" for m, text in zip(mark, row, strict=True)) + "</tr>"
            for row in cells
        )
        inner = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._blocks.append(_figure(f'<div class="scroll">{inner}</div>', caption))

    def scores(self, scores: Sequence[Score], caption: str = "", percent: bool = True) -> None:
        """A bar for each score with its interval, ticks for its baselines and a mark at its goal.

        In per cent all bars run from 0 to 100; otherwise to the largest number among them.
        """
        reach = [n for s in scores for n in (s.high, s.value, s.goal or 0, *s.baselines.values()) if np.isfinite(n)]
        end = 1.0 if percent else max(reach, default=1.0) * 1.02 or 1.0
        inner = "".join(_score(score, end, percent) for score in scores)
        self._blocks.append(_figure(f'<div class="scores">{inner}</div>', caption))

    def figure(self, picture: AnyPicture, caption: str = "") -> None:
        """One picture over the width of the page; on a narrow screen a wide one is scrolled, not shrunk."""
        self._blocks.append(_figure(f'<div class="wide">{_image(picture, caption)}</div>', caption))

    def gallery(self, pictures: Sequence[tuple[AnyPicture, str]], caption: str = "") -> None:
        """Pictures with captions, as many beside each other as fit."""
        inner = "".join(_figure(_image(picture, note), note) for picture, note in pictures)
        self._blocks.append(_figure(f'<div class="gallery">{inner}</div>', caption))

    def videos(self, films: Sequence[tuple[bytes, str]], caption: str = "") -> None:
        """MP4 or GIF files with captions, as many beside each other as fit; the page carries them inside itself."""
        inner = "".join(_figure(_film(film, note), note) for film, note in films)
        self._blocks.append(_figure(f'<div class="gallery films">{inner}</div>', caption))

    def picture_table(
        self, headings: Sequence[str], rows: Sequence[tuple[str, Sequence[AnyPicture]]], caption: str = ""
    ) -> None:
        """Rows of pictures under common headings; each row is (note, pictures), and may have fewer than headings."""
        head = "".join(f"<span>{html.escape(heading)}</span>" for heading in headings)
        body = "".join(
            "".join(_image(picture, f"{note} {heading}") for heading, picture in zip(headings, pictures, strict=False))
            + (f"<p>{_inline(note)}</p>" if note else "<p></p>")
            for note, pictures in rows
        )
        grid = f'<div class="pictures" style="--columns:{len(headings)}">{head}{body}</div>'
        self._blocks.append(_figure(grid, caption))

    def conversation(self, picture: AnyPicture, exchanges: Sequence[Exchange], caption: str = "") -> None:
        """A picture with the questions that were asked about it and the replies."""
        talk = "".join(_exchange(exchange) for exchange in exchanges)
        shown = _figure(_image(picture, caption), caption)
        self._blocks.append(f'<section class="talk">{shown}<dl>{talk}</dl></section>')

    def details(self, summary: str, text: str) -> None:
        """Long plain text (a configuration, a log) folded away under its name."""
        inner = f"<summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre>"
        self._blocks.append(f"<details>{inner}</details>")

    def to_html(self) -> str:
        """The page."""
        style = files("gemvlm.figure").joinpath("report.css").read_text("utf-8")
        links = "".join(
            f'<a href="#s{number}">{html.escape(name)}</a>' for number, name in enumerate(self._sections, start=1)
        )
        subtitle = f"<p>{_inline(self.subtitle)}</p>" if self.subtitle else ""
        title = html.escape(self.title)
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="color-scheme" content="light dark">\n<style>\n{style}</style>\n</head>\n<body>\n'
            f"<header><h1>{title}</h1>{subtitle}{f'<nav>{links}</nav>' if len(self._sections) > 1 else ''}</header>\n"
            "<main>\n" + "\n".join(self._blocks) + "\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page as one file; a reader sees the old page or the new one, never half of it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.to_html())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path


def _inline(text: str) -> str:
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)


def _paragraph(part: str) -> str:
    lines = part.splitlines()
    if all(line.lstrip().startswith("- ") for line in lines):
        items = "".join(f"<li>{_inline(line.lstrip()[2:])}</li>" for line in lines)
        return f"<ul>{items}</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _figure(inner: str, caption: str) -> str:
    return f"<figure>{inner}{f'<figcaption>{_inline(caption)}</figcaption>' if caption else ''}</figure>"


def _image(picture: AnyPicture, alt: str) -> str:
    data = picture if isinstance(picture, bytes) else png_bytes(picture)
    kind = "png" if data.startswith(b"\x89PNG") else "svg+xml"
    shown = ' class="pixels"' if isinstance(picture, np.ndarray) and max(picture.shape) <= SMALL_PICTURE else ""
    return f'<img{shown} alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _film(film: bytes, alt: str) -> str:
    data = base64.b64encode(film).decode()
    if film.startswith(b"GIF8"):
        return f'<img alt="{html.escape(alt)}" src="data:image/gif;base64,{data}">'
    return f'<video controls muted loop playsinline preload="metadata" src="data:video/mp4;base64,{data}"></video>'


def _cell_text(cell: object) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else "" if cell is None else str(cell)


def _looks_numeric(text: str) -> bool:
    return bool(re.fullmatch(r"|–|nan|[-+−±<≤>≥]?\s*[\d.,]+([–-][\d.,]+)?\s*(%|[a-zA-Z]{1,3})?(\s*[\[(±].*)?", text))


def _number(value: float, percent: bool) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def _score(score: Score, end: float, percent: bool) -> str:
    def place(value: float) -> str:
        return f"{100 * min(max(value / end, 0), 1):.2f}%" if np.isfinite(value) else "0%"

    unit = "&#8239;%" if percent else ""
    reached = score.reached()
    verdict = "" if reached is None else ' class="reached"' if reached else ' class="open"'
    left, right = (float(place(edge)[:-1]) for edge in (score.low, score.high))
    ticks = "".join(f'<i class="tick" style="left:{place(value)}"></i>' for value in score.baselines.values())
    if score.goal is not None:
        ticks += f'<i class="goal" style="left:{place(score.goal)}"></i>'
    named = [f"{html.escape(name)}&nbsp;<b>{_number(value, percent)}</b>" for name, value in score.baselines.items()]
    if score.goal is not None:
        sign = "≥" if score.better == "higher" else "≤"
        state = "reached" if reached else "open"
        named.append(f'<span class="{state}">goal {sign}&nbsp;{_number(score.goal, percent)}: {state}</span>')
    if score.count is not None:
        named.append(f"n&nbsp;=&nbsp;{score.count:,}".replace(",", "&#8239;"))
    if score.note:
        named.append(html.escape(score.note))
    return (
        f"<div{verdict}><h4>{html.escape(score.name)}</h4>"
        f'<div class="track"><i class="fill" style="width:{place(score.value)}"></i>'
        f'<i class="interval" style="left:{left:.2f}%;width:{max(right - left, 0):.2f}%"></i>{ticks}</div>'
        f"<output>{_number(score.value, percent)}{unit} <small>{_number(score.low, percent)}–"
        f"{_number(score.high, percent)}</small></output><p>{' · '.join(named)}</p></div>"
    )


def _exchange(exchange: Exchange) -> str:
    verdict = {True: ' class="right"', False: ' class="wrong"', None: ""}[exchange.right]
    truth = ""
    if exchange.truth is not None and exchange.right is not True:
        truth = f"<small>true answer: {html.escape(exchange.truth)}</small>"
    answer = html.escape(exchange.answer) or "(no answer)"
    return f"<div><dt>{html.escape(exchange.question)}</dt><dd{verdict}>{answer}{truth}</dd></div>"
