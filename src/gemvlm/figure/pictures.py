"""Pictures for people: depth in colours, errors, points and boxes.

Colours are only a view: values are read from `DepthMap`, never from these pictures.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from PIL import Image, ImageDraw, ImageFont

Picture = UInt8[np.ndarray, "H W 3"]
Enlarged = UInt8[np.ndarray, "h w 3"]

MARKS = ((230, 57, 70), (29, 112, 184), (247, 160, 0), (20, 150, 110), (140, 70, 190), (240, 110, 170))
"""Colours of points and boxes, in turn; told apart by the common colour deficiencies."""

ERROR_END = 0.2
"""The relative error of the brightest colour of an error map."""

PANEL_TEXT = (128, 128, 128, 255)
"""A grey that reads on white and on black: panels have no background of their own."""


@dataclass(frozen=True)
class DepthRow:
    """One line of a depth panel. All depths are in one unit and of the image's size; `true` may be unknown.

    `aligned` says that a scale and shift was fitted before comparing; it is written above the panel, never implied.
    """

    image: Picture
    generated: Float[np.ndarray, "H W"]
    true: Float[np.ndarray, "H W"] | None = None
    valid: Bool[np.ndarray, "H W"] | None = None
    aligned: bool = False

    @property
    def limits(self) -> tuple[float, float]:
        """Depths of the warmest and the coolest colour: those of the truth where it is known."""
        return depth_limits(*((self.generated, None) if self.true is None else (self.true, self.valid)))

    def pictures(self) -> tuple[Picture, ...]:
        """RGB, true depth, generated depth, relative error; RGB and generated depth if the truth is unknown."""
        low, high = self.limits
        generated = colour_depth(self.generated, None, low, high)
        if self.true is None:
            return self.image, generated
        true = colour_depth(self.true, self.valid, low, high)
        return self.image, true, generated, error_map(self.generated, self.true, self.valid)

    def headings(self) -> tuple[str, ...]:
        """Names of `pictures`, in their order."""
        generated = "Generated, aligned" if self.aligned else "Generated"
        return (
            ("Image", generated)
            if self.true is None
            else ("Image", "True depth", generated, f"Error: dark 0, pale {ERROR_END:.0%}")
        )


def depth_limits(depth: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"] | None = None) -> tuple[float, float]:
    """The 2nd and the 98th percentile of the valid depths, (0, 1) if there are none."""
    values = depth[_seen(depth, valid)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, [2, 98])
    return float(low), float(max(high, low + 1e-6))


def colour_depth(
    depth: Float[np.ndarray, "H W"],
    valid: Bool[np.ndarray, "H W"] | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Picture:
    """Depth as colours: near is warm, far is cool, invalid is hatched grey.

    `low` and `high` are the depths of the two ends of the scale; by default the 2nd and 98th percentile of the picture.
    """
    limits = depth_limits(depth, valid)
    low, high = limits[0] if low is None else low, limits[1] if high is None else high
    return _paint(depth, _seen(depth, valid), low, high, "Spectral")


def error_map(
    generated: Float[np.ndarray, "H W"],
    true: Float[np.ndarray, "H W"],
    valid: Bool[np.ndarray, "H W"] | None = None,
    high: float = ERROR_END,
) -> Picture:
    """|generated − true| / true: black is right, bright is off by `high` or more, pixels without truth are hatched."""
    seen = _seen(true, valid) & (true > 0)
    error = np.abs(generated - true) / np.where(seen, true, 1)
    return _paint(error, seen, 0.0, high, "magma")


def draw_points_boxes(
    image: Picture,
    points: Sequence[tuple[float, float]] = (),
    boxes: Sequence[tuple[float, float, float, float]] = (),
    labels: Sequence[str] = (),
    side: int = 480,
) -> Enlarged:
    """The image with marked places, enlarged first so that marks stay fine on small images.

    `points` are (x, y) and `boxes` (left, top, right, bottom), as fractions of width and height; `labels` name the
    points first, then the boxes, and may be shorter. Places of one label have one colour.
    """
    canvas = Image.fromarray(enlarge(image, side)).convert("RGBA")
    marks = Image.new("RGBA", canvas.size)
    draw = ImageDraw.Draw(marks)
    width, height = canvas.size
    stroke = max(2, round(max(width, height) / 160))
    names = [*labels, *[""] * (len(points) + len(boxes) - len(labels))]
    kinds = list(dict.fromkeys(name or index for index, name in enumerate(names)))
    colours = [MARKS[kinds.index(name or index) % len(MARKS)] for index, name in enumerate(names)]
    for index, (x, y) in enumerate(points):
        _draw_point(draw, x * width, y * height, 3.0 * stroke, colours[index], names[index], canvas.size)
    for index, (x0, y0, x1, y1) in enumerate(boxes, start=len(points)):
        corners = (x0 * width, y0 * height, x1 * width, y1 * height)
        _draw_box(draw, corners, stroke, colours[index], names[index], canvas.size)
    return np.asarray(Image.alpha_composite(canvas, marks).convert("RGB"))


def depth_panel(rows: Sequence[DepthRow], side: int = 240) -> Image.Image:
    """Rows of RGB | true | generated | error under their headings, on a transparent ground."""
    if not rows:
        raise ValueError("depth panel: no rows were given; pass at least one DepthRow")
    cells = [[enlarge(picture, side) for picture in row.pictures()] for row in rows]
    headings = max((row.headings() for row in rows), key=len)
    gap, top = max(4, side // 24), max(18, side // 8)
    width = max(picture.shape[1] for row in cells for picture in row)
    heights = [max(picture.shape[0] for picture in row) for row in cells]
    panel = Image.new("RGBA", (len(headings) * (width + gap) - gap, top + sum(heights) + gap * (len(rows) - 1)))
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(max(11, side // 15))
    for column, heading in enumerate(headings):
        draw.text((column * (width + gap), top // 2), heading, PANEL_TEXT, font, anchor="lm")
    y = top
    for row, height in zip(cells, heights, strict=True):
        for column, picture in enumerate(row):
            panel.paste(Image.fromarray(picture), (column * (width + gap), y))
        y += height + gap
    return panel


def enlarge(image: Picture, side: int) -> Enlarged:
    """Repeats pixels a whole number of times until the long side is nearest to `side`; large images pass unchanged."""
    times = max(1, round(side / max(image.shape[:2])))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def png_bytes(picture: Picture | Image.Image) -> bytes:
    """The picture as a PNG file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _seen(depth: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"] | None) -> Bool[np.ndarray, "H W"]:
    return np.isfinite(depth) if valid is None else valid & np.isfinite(depth)


def _paint(
    values: Float[np.ndarray, "H W"], seen: Bool[np.ndarray, "H W"], low: float, high: float, name: str
) -> Picture:
    scaled = (np.where(seen, values, low) - low) / (high - low if high != low else 1)
    colours = _colour_table(name)[np.round(np.clip(scaled, 0, 1) * 255).astype(int)]
    return np.where(seen[..., None], colours, _hatch(*seen.shape)[..., None]).astype(np.uint8)


@cache
def _colour_table(name: str) -> UInt8[np.ndarray, "256 3"]:
    from matplotlib import colormaps

    return colormaps[name](np.arange(256), bytes=True)[:, :3]


def _hatch(height: int, width: int) -> Num[np.ndarray, "H W"]:
    """Grey with slanted lines, so that "no value" is not taken for a depth, not even in print."""
    rows, columns = np.mgrid[:height, :width]
    return np.where((rows + columns) % 8 < 2, 150, 196)


def _draw_point(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    radius: float,
    colour: tuple[int, ...],
    name: str,
    size: tuple[int, int],
) -> None:
    for extra, fill in ((2, (0, 0, 0, 110)), (1, (255, 255, 255, 255)), (-1, (*colour, 255))):
        reach = radius + extra
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)
    _draw_name(draw, x + radius + 4, y - radius, colour, name, size)


def _draw_box(
    draw: ImageDraw.ImageDraw,
    corners: tuple[float, float, float, float],
    stroke: int,
    colour: tuple[int, ...],
    name: str,
    size: tuple[int, int],
) -> None:
    x0, x1 = sorted((corners[0], corners[2]))
    y0, y1 = sorted((corners[1], corners[3]))
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(255, 255, 255, 220), width=stroke + 2)
    draw.rectangle((x0, y0, x1, y1), outline=(*colour, 255), width=stroke)
    _draw_name(draw, x0 + stroke + 3, y0 + stroke + 3, colour, name, size)


def _draw_name(
    draw: ImageDraw.ImageDraw, x: float, y: float, colour: tuple[int, ...], name: str, size: tuple[int, int]
) -> None:
    if not name:
        return
    font = ImageFont.load_default(max(11, max(size) // 32))
    left, top, right, bottom = draw.textbbox((0, 0), name, font)
    x = float(np.clip(x, 4, max(4, size[0] - (right - left) - 8)))
    y = float(np.clip(y, 4, max(4, size[1] - (bottom - top) - 8)))
    frame = (x - 4, y - 3, x + right - left + 4, y + bottom - top + 4)
    draw.rounded_rectangle(frame, radius=4, fill=(*colour, 235))
    draw.text((x - left, y - top), name, (255, 255, 255, 255), font)
