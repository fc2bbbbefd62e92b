"""Our own samples as a benchmark: the local suites, and any curated set that is held back for tests.

The rule is `scoring.score`; its headline counts every family alike, families of two answers by the questions that no
shortcut answers (`Turn.subsets`), which are a category of their own. Coordinates in questions are rounded to hundredths
of the image in every convention: a small model has a token for each, and questions are only asked where so little does
not matter.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np
from PIL import Image

from gemvlm.data.conversation import MAX_POINTS, ParsedAnswer, parse
from gemvlm.evaluation.benchmark import Convention, Item, Media, Score, means
from gemvlm.evaluation.coordinates import from_fractions, read_places
from gemvlm.evaluation.scoring import score
from gemvlm.evaluation.shortcuts import shortcut_scores
from gemvlm.sample import PLACE_MARKER, Box, Place, Point, Sample, Task, Turn

HEADLINE = "headline"
DESCRIPTION_TOKENS, ANSWER_TOKENS = 400, 48
"""Enough for a full scene and for any other answer; a longer reply is cut."""
SHARES = 100
PLACE_KINDS = ("point", "points", "box", "trajectory")

_UNITS = {
    "fraction": "as decimals from 0 to 1 of the image's width and height",
    "hundred": "from 0 to 100 of the image's width and height",
    "thousand": "in whole numbers from 0 to 1000 of the image's width and height",
    "pixel": "in pixels of the image",
}


@dataclass(frozen=True, eq=False)
class SampleBenchmark:
    """Every turn of `samples` is an item; blind baselines are fitted on the turns of `fitted`, of other scenes.

    `instructed` adds to each question how it is to be answered: for models that were not trained on such questions.
    """

    name: str
    protocol: str
    samples: Sequence[Sample]
    fitted: Sequence[Sample] = ()
    instructed: bool = False
    convention: Convention = field(default_factory=Convention)

    def __post_init__(self) -> None:
        if shared := {s.scene for s in self.samples} & {s.scene for s in self.fitted}:
            raise ValueError(
                f"{self.name}: {len(shared)} scenes are in both sets, e.g. {min(shared)!r}; split by scene"
            )

    def written_for(self, convention: Convention) -> SampleBenchmark:
        """The same items with their coordinates in another convention."""
        return self if convention == self.convention else replace(self, convention=convention)

    @cached_property
    def _places(self) -> dict[str, tuple[Sample, Turn]]:
        return {
            f"{sample.id}/{place}-{turn.family}": (sample, turn)
            for sample in self.samples
            for place, turn in enumerate(sample.turns)
        }

    @cached_property
    def _items(self) -> tuple[Item, ...]:
        media: dict[str, tuple[Media, ...]] = {}
        items = []
        for id, (sample, turn) in self._places.items():
            if sample.id not in media:
                media[sample.id] = tuple(Media(frame.encoded or _png(frame.image)) for frame in sample.frames)
            items.append(self._item(id, sample, turn, media[sample.id]))
        return tuple(items)

    def items(self) -> Sequence[Item]:
        """One for each turn, in the order of the samples."""
        return self._items

    def _item(self, id: str, sample: Sample, turn: Turn, media: tuple[Media, ...]) -> Item:
        size = _size(sample)
        prompt = _filled(turn.question, turn.places, self.convention, size, SHARES)
        if self.instructed:
            prompt = f"{prompt} {_instruction(turn, self.convention)}"
        named = [turn.places[int(number)] for number in PLACE_MARKER.findall(turn.answer)]
        meta = {
            "family": turn.family,
            "task": turn.task,
            "kind": turn.kind,
            "subsets": list(turn.subsets),
            "answer_places": [_numbers(place) for place in named],
        }
        return Item(
            id,
            media,
            prompt,
            _filled(turn.answer, turn.places, self.convention, size),
            f"{turn.family}, {HEADLINE}" if HEADLINE in turn.subsets else turn.family,
            sample.scene,
            turn.options,
            sample.system,
            meta,
            max_new_tokens=DESCRIPTION_TOKENS if turn.task == "description" else ANSWER_TOKENS,
        )

    def score(self, item: Item, reply: str, convention: Convention) -> Score:
        sample, turn = self._places[item.id]
        answer, outside = read_answer(reply, turn, convention, _size(sample))
        return Score(score(turn, answer), _plain(answer), outside=outside)

    def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
        """Under "overall" and each task the mean over their families, of headlines where there are; then all parts.

        Families stand by task and name, each before its headline.
        """
        found = means(items, scores)
        order = {task: place for place, task in enumerate(get_args(Task))}
        asked = {str(item.meta["family"]): str(item.meta["task"]) for item in items}
        tasks = dict(sorted(asked.items(), key=lambda pair: (order[pair[1]], pair[0])))
        places = {family: place for place, family in enumerate(tasks)}
        parts = dict(sorted(found.items(), key=lambda pair: (places[pair[0].partition(",")[0]], pair[0])))
        heads = {family: parts.get(f"{family}, {HEADLINE}", parts.get(family)) for family in tasks}
        summary = {"overall": _mean([head for head in heads.values() if head is not None])}
        for task in dict.fromkeys(tasks.values()):
            summary[task] = _mean(
                [head for family, head in heads.items() if tasks[family] == task and head is not None]
            )
        return summary | parts

    def oracle(self, item: Item, convention: Convention) -> str:
        sample, turn = self._places[item.id]
        return _filled(turn.answer, turn.places, convention, _size(sample))

    def guess(self, item: Item, rng: np.random.Generator, convention: Convention) -> str:
        """A random option, pixel, or answer of another such question; nothing where there is nothing to draw from."""
        sample, turn = self._places[item.id]
        if turn.kind == "point" and turn.region is not None:
            row, column = rng.integers(turn.region.height), rng.integers(turn.region.width)
            point = Point((float(column) + 0.5) / turn.region.width, (float(row) + 0.5) / turn.region.height)
            return _written(point, convention, _size(sample))
        drawn = self._drawn(turn)
        return drawn[int(rng.integers(len(drawn)))] if drawn else ""

    def chance(self, item: Item) -> float:
        _, turn = self._places[item.id]
        if turn.kind == "point" and turn.region is not None:
            return float(turn.region.to_mask().mean())
        drawn = self._drawn(turn)
        right = [score(turn, parse(answer, turn.kind, turn.options, turn.unit)) for answer in drawn]
        return float(np.mean(right)) if drawn else 0.0

    def _drawn(self, turn: Turn) -> tuple[str, ...]:
        if turn.kind == "choice":
            return turn.options
        if turn.kind == "yes_no":
            return ("yes", "no")
        return self._answers.get(turn.family, ()) if turn.kind == "text" and turn.task != "description" else ()

    @cached_property
    def _answers(self) -> Mapping[str, tuple[str, ...]]:
        known: dict[str, set[str]] = {}
        for sample in self.fitted:
            for turn in sample.turns:
                known.setdefault(turn.family, set()).add(turn.answer)
        return {family: tuple(sorted(answers)) for family, answers in known.items()}

    def blind(self) -> dict[str, list[float]]:
        """The score of each blind baseline on every item, in their order; chance where one has nothing to say.

        "cue" is the one measurement in the image that answers the family's questions best in `fitted`.
        """
        found: dict[str, list[float]] = {name: [0.0] * len(self._places) for name in BLIND}
        turns = [turn for _, turn in self._places.values()]
        for family in dict.fromkeys(turn.family for turn in turns):
            members = [i for i, turn in enumerate(turns) if turn.family == family]
            train = [turn for sample in self.fitted for turn in sample.turns if turn.family == family]
            scores = shortcut_scores(train, [turns[i] for i in members])
            cues = [name for name in scores if name not in BLIND]
            known = shortcut_scores(train, train) if cues and train else scores
            best = max(cues, key=lambda name: float(np.mean(known.get(name, known["chance"]))), default="chance")
            for name in BLIND:
                for i, value in zip(
                    members, scores.get(best if name == "cue" else name, scores["chance"]), strict=True
                ):
                    found[name][i] = float(value)
        return found


BLIND = ("chance", "majority", "text_only", "cue")


def read_answer(reply: str, turn: Turn, convention: Convention, size: tuple[int, int]) -> tuple[ParsedAnswer, int]:
    """A reply as an answer of the turn's kind, and how many of its places lie outside the convention.

    `size` is (width, height) of the image in pixels.
    """
    if turn.kind not in PLACE_KINDS:
        return parse(reply, turn.kind, turn.options, turn.unit), 0
    places = read_places(reply, convention, size)
    points = tuple(Point(*xy) for xy in places.points if np.isfinite(xy).all())
    value: Point | Box | tuple[Point, ...] | None = None
    if turn.kind == "box":
        boxes = [Box(*xyxy) for xyxy in places.boxes if np.isfinite(xyxy).all()]
        value = next((box for box in boxes if box.x0 <= box.x1 and box.y0 <= box.y1), None)
    elif turn.kind == "point":
        value = points[0] if points else None
    elif (2 if turn.kind == "trajectory" else 1) <= len(points) == len(places.points) <= MAX_POINTS:
        value = points
    return ParsedAnswer(turn.kind, value), places.outside


def _instruction(turn: Turn, convention: Convention) -> str:
    """How a question is to be answered, in words."""
    pair = "(x, y)" if convention.axes == "xy" else "(y, x)"
    corners = "(x0, y0, x1, y1)" if convention.axes == "xy" else "(y0, x0, y1, x1)"
    where = _UNITS[convention.unit]
    if turn.kind == "choice":
        return f"Answer with one of these and nothing else: {'; '.join(turn.options)}."
    if turn.kind == "number":
        return f"Answer with a number{f' in {turn.unit}' if turn.unit else ''} and nothing else."
    if turn.task == "description":
        return "Name every object by colour and kind, parted by semicolons."
    return {
        "yes_no": "Answer yes or no.",
        "point": f"Answer with one point {pair}, {where}.",
        "points": f"Answer with points {pair}, {where}, parted by semicolons.",
        "trajectory": f"Answer with points {pair} along the way, {where}, parted by semicolons.",
        "box": f"Answer with a box {corners}, {where}.",
        "text": "Answer in a few words and nothing else.",
    }[turn.kind]


def _filled(
    text: str, places: Sequence[Place], convention: Convention, size: tuple[int, int], shares: int | None = None
) -> str:
    """Text with its place markers written out, rounded to so many `shares` of the image."""
    return PLACE_MARKER.sub(lambda marker: _written(places[int(marker[1])], convention, size, shares), text)


def _written(place: Place, convention: Convention, size: tuple[int, int], shares: int | None = None) -> str:
    numbers = [min(max(number, 0.0), 1.0) for number in _numbers(place)]
    if shares is not None:
        numbers = [round(number * shares) / shares for number in numbers]
    return f"({', '.join(from_fractions(numbers, convention, size))})"


def _numbers(place: Place) -> list[float]:
    return [place.x, place.y] if isinstance(place, Point) else [place.x0, place.y0, place.x1, place.y1]


def _plain(answer: ParsedAnswer) -> Any:
    if isinstance(answer.value, tuple):
        return [_numbers(point) for point in answer.value]
    return _numbers(answer.value) if isinstance(answer.value, Point | Box) else answer.value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _size(sample: Sample) -> tuple[int, int]:
    height, width = sample.frames[0].image.shape[:2]
    return width, height


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
