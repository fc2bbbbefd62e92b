"""Render ⇄ parse: turns to the text that a model reads, and its replies back to values that can be scored.

A conversation is rendered as segments of text and slots for images. Which tokens a loss supervises is decided here, by
who speaks, never by searching token ids for a word. Images come first in the first user turn, every one in a vision
span of its own; a video is N frames, hence N images. What a user or an answer says is plain text: only markup may hold
special tokens.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from gemvlm.data.tokenizer import TURN_END, TURN_START, VISION_END, VISION_START
from gemvlm.sample import PLACE_MARKER, AnswerKind, Box, Place, Point, Sample

IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER = "<image>", "<video>"
METRES = {
    "m": 1.0, "meter": 1.0, "meters": 1.0, "metre": 1.0, "metres": 1.0,
    "cm": 0.01, "centimeter": 0.01, "centimeters": 0.01, "centimetre": 0.01, "centimetres": 0.01,
    "mm": 0.001, "millimeter": 0.001, "millimeters": 0.001, "millimetre": 0.001, "millimetres": 0.001,
}  # fmt: skip
NUMBER_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6,
    "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip

_NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?|-?\.\d+)\s*([a-zA-Z]+)?")
_TUPLE = re.compile(r"[(\[]\s*(-?\d+(?:\.\d+)?(?:\s*,\s*-?\d+(?:\.\d+)?)+)\s*[)\]]")
_LETTER = re.compile(r"^\(?([A-Za-z])(?:[).:]\s*(.*)|\)?)$", re.DOTALL)
_ARTICLE = re.compile(r"^(the|a|an)\s+")


@dataclass(frozen=True)
class Segment:
    """Text of a conversation. `markup` text may hold special tokens; in other text they are ordinary characters."""

    text: str
    supervised: bool = False
    markup: bool = False


@dataclass(frozen=True)
class ImageSlot:
    """Where the tokens of frame `index` stand, strictly between its vision markers."""

    index: int


@dataclass(frozen=True)
class CoordinateFormat:
    """How places are written: integers from 0 to `scale` in multiples of `step`. Qwen3-VL: 0..1000, every integer."""

    scale: int = 1000
    step: int = 1

    def __post_init__(self) -> None:
        if self.step < 1 or self.scale % self.step:
            raise ValueError(f"coordinate step {self.step} does not divide the scale {self.scale}")

    @property
    def integers(self) -> range:
        """Every integer that a coordinate can be written as; a small tokenizer needs a token for each."""
        return range(0, self.scale + 1, self.step)

    def integer(self, fraction: float) -> int:
        """The nearest writable integer; fractions outside [0, 1] are clipped to the image's border."""
        steps = round(min(max(fraction, 0.0), 1.0) * self.scale / self.step)
        return steps * self.step

    def write(self, place: Place) -> str:
        """A point as "(x, y)", a box as "(x0, y0, x1, y1)"."""
        values = (place.x, place.y) if isinstance(place, Point) else (place.x0, place.y0, place.x1, place.y1)
        return "(" + ", ".join(str(self.integer(value)) for value in values) + ")"

    def fill(self, text: str, places: Sequence[Place]) -> str:
        """Text with every `<place:i>` marker written out."""
        return PLACE_MARKER.sub(lambda marker: self.write(places[int(marker[1])]), text)


def render(
    sample: Sample,
    turn_indices: Sequence[int],
    coordinates: CoordinateFormat,
    system: str | None = None,
) -> list[Segment | ImageSlot]:
    """The chosen turns of a sample, in the given order, as one conversation about all its frames.

    Without turns, only the images are rendered (enough for a generator that reads their states). `<image>` in questions
    is optional; where it is used, the whole sample must hold one per frame, else ValueError with the counts. They keep
    their place if the first chosen question holds them all; otherwise the images stand before that question.
    """
    placeholders = sum(turn.question.count(IMAGE_PLACEHOLDER) for turn in sample.turns)
    if placeholders not in (0, len(sample.frames)):
        raise ValueError(
            f"sample {sample.id!r}: questions hold {placeholders} {IMAGE_PLACEHOLDER} but the sample has "
            f"{len(sample.frames)} frames; write one per frame or none"
        )
    exchanges: list[tuple[str, str | None]] = []
    for index in turn_indices:
        turn = sample.turns[index]
        question = coordinates.fill(turn.question, turn.places)
        if exchanges or question.count(IMAGE_PLACEHOLDER) != placeholders:
            question = " ".join(piece.strip() for piece in question.split(IMAGE_PLACEHOLDER))
        exchanges.append((question, coordinates.fill(turn.answer, turn.places)))
    try:
        return render_dialogue(len(sample.frames), exchanges, system)
    except ValueError as error:
        raise ValueError(f"sample {sample.id!r}: {error}") from error


def render_dialogue(
    frame_count: int, exchanges: Sequence[tuple[str, str | None]], system: str | None = None
) -> list[Segment | ImageSlot]:
    """Questions and answers about `frame_count` images; an answer of None ends the text where the model must begin.

    The images stand in the first question: at its `<image>` placeholders, one for each, or before it if it has none.
    ValueError if their numbers differ. Answers are supervised with their end-of-turn token and the newline after it.
    System text comes before the images.
    """
    parts: list[Segment | ImageSlot] = []
    if system is not None:
        parts += [_opening("system"), Segment(system.strip()), _CLOSING]
    for position, (question, answer) in enumerate(exchanges):
        parts += _user(question, frame_count if position == 0 else 0)
        parts.append(_opening("assistant"))
        if answer is None:
            break
        parts += [Segment(answer.strip(), supervised=True), replace(_CLOSING, supervised=True)]
    if not exchanges:
        parts += _user("", frame_count)
    return [part for part in parts if isinstance(part, ImageSlot) or part.text]


def _opening(role: str) -> Segment:
    return Segment(f"{TURN_START}{role}\n", markup=True)


_CLOSING = Segment(TURN_END + "\n", markup=True)


def _user(text: str, frame_count: int) -> list[Segment | ImageSlot]:
    if VIDEO_PLACEHOLDER in text:
        raise ValueError(f"a question holds {VIDEO_PLACEHOLDER}; write one {IMAGE_PLACEHOLDER} per frame of it or none")
    if IMAGE_PLACEHOLDER not in text:
        text = IMAGE_PLACEHOLDER * frame_count + text
    texts = text.split(IMAGE_PLACEHOLDER)
    if len(texts) - 1 != frame_count:
        raise ValueError(
            f"a question holds {len(texts) - 1} {IMAGE_PLACEHOLDER} but {frame_count} frames are shown with it; "
            "write one per frame or none"
        )
    parts: list[Segment | ImageSlot] = [_opening("user"), Segment(texts[0].strip())]
    for index, after in enumerate(texts[1:]):
        parts += [Segment(VISION_START, markup=True), ImageSlot(index), Segment(VISION_END, markup=True)]
        parts.append(Segment(after.strip()))
    return [*parts, _CLOSING]


MAX_REPLY, MAX_POINTS = 20_000, 64
"""Characters of a reply, and points in it, beyond which it is not an answer."""


@dataclass(frozen=True)
class ParsedAnswer:
    """What a reply says, or `value` None if it can't be understood, which scores as wrong.

    `value` is a str for "text" (normalised) and "choice" (the option as given), a bool for "yes_no", a float for
    "number" (metres where `unit` is a length, else the plain number), a Point for "point", a Box for "box", and Points
    in the order of the reply for "points" (one or more) and "trajectory" (two or more).
    """

    kind: AnswerKind
    value: str | bool | float | Point | Box | tuple[Point, ...] | None


def parse(
    reply: str,
    kind: AnswerKind,
    options: Sequence[str] = (),
    unit: str | None = None,
    coordinates: CoordinateFormat | None = None,
) -> ParsedAnswer:
    """Reads a reply as an answer of the given kind; true answers are read by the same function."""
    reply = reply[: MAX_REPLY + 1].split(TURN_END)[0].strip()
    if len(reply) > MAX_REPLY:
        return ParsedAnswer(kind, None)
    if kind == "text":
        return ParsedAnswer(kind, normalise(reply) or None)
    if kind == "choice":
        return ParsedAnswer(kind, _choice(reply, options))
    if kind == "yes_no":
        return ParsedAnswer(kind, _yes_no(reply))
    if kind == "number":
        return ParsedAnswer(kind, _number(reply, unit))
    coordinates = coordinates or CoordinateFormat()
    if kind in ("points", "trajectory"):
        return ParsedAnswer(kind, _points(reply, 2 if kind == "trajectory" else 1, coordinates))
    return ParsedAnswer(kind, _place(reply, kind, coordinates))


def normalise(text: str) -> str:
    """Lower case, one space between words, no surrounding punctuation, no leading article."""
    text = " ".join(unicodedata.normalize("NFKC", text).lower().split()).strip(" .,;:!?\"'")
    return _ARTICLE.sub("", text)


def _choice(reply: str, options: Sequence[str]) -> str | None:
    """The option that the reply is, or whose letter it gives (alone, or before a text that does not contradict it)."""
    by_text = {normalise(option): option for option in options}
    if normalise(reply) in by_text:
        return by_text[normalise(reply)]
    letter = _LETTER.match(reply.strip())
    if letter is None:
        return None
    position = ord(letter[1].upper()) - ord("A")
    if position >= len(options):
        return None
    named = by_text.get(normalise(letter[2] or ""), options[position])
    return options[position] if named == options[position] else None


def _yes_no(reply: str) -> bool | None:
    words = re.findall(r"[a-z]+", reply.lower())
    if words and words[0] in ("yes", "no"):
        return words[0] == "yes"
    said = {word for word in words if word in ("yes", "no")}
    return said == {"yes"} if len(said) == 1 else None


def _number(reply: str, unit: str | None) -> float | None:
    """The one number of a reply, or None if there is none or if several disagree."""
    scale = METRES.get(unit or "", 1.0)
    values = set()
    for digits, suffix in _NUMBER.findall(reply):
        in_metres = METRES.get(suffix.lower()) if unit in METRES else None
        values.add(float(digits) * (scale if in_metres is None else in_metres))
    if not values:
        words = re.findall(r"[a-z]+", reply.lower())
        values = {NUMBER_WORDS[word] * scale for word in words if word in NUMBER_WORDS}
    return float(values.pop()) if len(values) == 1 else None


def _place(reply: str, kind: AnswerKind, coordinates: CoordinateFormat) -> Point | Box | None:
    """The first tuple of the right length, or Qwen3-VL's JSON; None if absent, outside the image or inside out."""
    needed = 2 if kind == "point" else 4
    values = next(_json_places(reply, "point_2d" if kind == "point" else "bbox_2d"), None)
    if values is None:
        values = next((found for found in _tuples(reply) if len(found) == needed), None)
    if values is None or len(values) != needed or not all(0 <= value <= coordinates.scale for value in values):
        return None
    fractions = [value / coordinates.scale for value in values]
    if kind == "point":
        return Point(*fractions)
    box = Box(*fractions)
    return box if box.x0 <= box.x1 and box.y0 <= box.y1 else None


def _points(reply: str, least: int, coordinates: CoordinateFormat) -> tuple[Point, ...] | None:
    """Every pair of the reply, in order; None if they are too few or too many, or one is no pair inside the image."""
    found = list(islice(_json_places(reply, "point_2d"), MAX_POINTS + 1))
    found = found or list(islice(_tuples(reply), MAX_POINTS + 1))
    if not least <= len(found) <= MAX_POINTS or any(len(values) != 2 for values in found):
        return None
    if not all(0 <= value <= coordinates.scale for values in found for value in values):
        return None
    return tuple(Point(x / coordinates.scale, y / coordinates.scale) for x, y in found)


def _tuples(reply: str) -> Iterator[list[float]]:
    return ([float(value) for value in match[1].split(",")] for match in _TUPLE.finditer(reply))


def _json_places(reply: str, key: str) -> Iterator[list[float]]:
    """Numbers under `key` in each JSON object of the reply that has it (in a code fence, a list, or bare)."""
    for candidate in re.finditer(r"\{[^{}]*\}", reply):
        try:
            values = json.loads(candidate[0]).get(key)
            if isinstance(values, list) and all(type(value) in (int, float) for value in values):
                yield [float(value) for value in values]
        except (ValueError, RecursionError, OverflowError):
            continue


def render_prompt(
    frames: int, question: str, history: Sequence[tuple[str, str]] = (), system: str | None = None
) -> list[Segment | ImageSlot]:
    """A conversation up to where its last question is to be answered, each exchange as `render_dialogue` renders it.

    Images stand at the `<image>` of the questions, in order, or before the first question if there is none. Nothing is
    supervised. ValueError if there are other than as many `<image>` as frames.
    """
    exchanges: list[tuple[str, str | None]] = [*history, (question, None)]
    counts = [asked.count(IMAGE_PLACEHOLDER) for asked, _ in exchanges]
    if not any(counts):
        counts[0] = frames
    if sum(counts) != frames:
        raise ValueError(
            f"the questions hold {sum(counts)} {IMAGE_PLACEHOLDER} but {frames} frames are shown; "
            "write one for each, or none"
        )
    parts: list[Segment | ImageSlot] = []
    shown = 0
    for exchange, count in zip(exchanges, counts, strict=True):
        for part in render_dialogue(count, [exchange], None if parts else system):
            if isinstance(part, ImageSlot):
                parts.append(ImageSlot(shown + part.index))
            else:
                parts.append(replace(part, supervised=False))
        shown += count
    return parts
