"""Samples to leaf through on a page of the report's style: a few at a time, filtered by what they are about.

    page = GalleryPage("A set", "100 samples")
    page.browser("samples", cards)
    page.write("set.html")

Everything lies in the one file. Words and names come from data of unknown origin: they travel as JSON, the script of
the page puts them in as text, and a content policy lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from gemvlm.figure.report import Report

THUMBNAIL_SIDE = 288
"""Pixels of the long side; smaller pictures are kept as they are."""

PER_PAGE = 8


@dataclass(frozen=True)
class Mark:
    """Something in a picture, as fractions of its sides: (x, y), (left, top, right, bottom), or x, y, x, y, ..."""

    kind: Literal["point", "box", "path"]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Exchanged:
    """A question with its answer. `<place:N>` in the words is shown in the colour of the N-th mark.

    `area` is a picture (`area_picture`) of where a pointing answer may lie.
    """

    question: str
    answer: str
    family: str
    note: str = ""
    marks: tuple[Mark, ...] = ()
    area: str = ""


@dataclass(frozen=True)
class Shown:
    """A picture, with its depth in colours if there is any: data URIs, see `thumbnail`."""

    picture: str
    depth: str = ""
    note: str = ""


@dataclass(frozen=True)
class Card:
    """One sample. `tags` are what can be chosen by: for each name ("family", "source", ...) the card's values."""

    title: str
    note: str
    pictures: tuple[Shown, ...]
    talk: tuple[Exchanged, ...] = ()
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class GalleryPage(Report):
    """A report that can also hold browsers of cards."""

    def browser(self, name: str, cards: Sequence[Card]) -> None:
        """Cards, some at a time, with a choice for every tag. `name` tells browsers of one page apart."""
        data = json.dumps([asdict(card) for card in cards], ensure_ascii=False).replace("<", "\\u003c")
        self._blocks.append(
            f'<section class="browser" data-per-page="{PER_PAGE}" aria-label="{name}">'
            f'<script type="application/json">{data}</script>'
            "<noscript>To leaf through the samples, let this page run its script.</noscript></section>"
        )

    def to_html(self) -> str:
        """The page. Its policy names the hash of its own script: text that turns out to be another one stays text."""
        script, style = _resource("gallery.js"), _resource("gallery.css")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>\n{style}</style>\n</head>'
        page = super().to_html().replace("</head>", head, 1)
        body, end, rest = page.rpartition("</body>")
        return f"{body}<script>{script}</script>\n{end}{rest}"


def thumbnail(image: UInt8[np.ndarray, "H W 3"], side: int = THUMBNAIL_SIDE) -> str:
    """A small copy as a data URI; "" for an image without pixels."""
    if not image.size:
        return ""
    picture = Image.fromarray(image)
    small = max(picture.size) <= side
    if not small:
        picture.thumbnail((side, side))
    buffer = io.BytesIO()
    # What is shown enlarged must not show a codec's blocks.
    picture.save(buffer, "WEBP", quality=90 if small else 75)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def area_picture(mask: Bool[np.ndarray, "H W"], side: int = 160) -> str:
    """A set of pixels as a transparent picture, to be laid over the image."""
    step = max(1, -(-max(mask.shape) // side))
    inside = mask[::step, ::step]
    picture = np.zeros((*inside.shape, 4), np.uint8)
    picture[inside] = (255, 255, 255, 120)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _resource(name: str) -> str:
    return files("gemvlm.figure").joinpath(name).read_text("utf-8")
