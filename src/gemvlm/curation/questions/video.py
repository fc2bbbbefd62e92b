"""What a video shows that no one image does: what came into view, how many there were, what is hidden by now.

Rules V6, V7 and V10 of the data notes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemvlm.curation.questions.moments import Moments, spoken_list
from gemvlm.curation.questions.outlines import inside_hull
from gemvlm.curation.questions.wording import pairs, pick, plural, shuffled
from gemvlm.sample import Point, Region, Turn

APART_S = 1.0


def appearance_order(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Which of two came into view first (V6)? A second apart at least; before, each was out of sight altogether."""
    times = moments.history.times_s
    if times is None or not moments.is_told_in_order:
        return
    first: dict[int, int] = {}
    for object_id in moments.nameable_somewhere:
        image = next(i for i, objects in enumerate(moments.nameable) if object_id in objects)
        if all(moments.is_hidden(object_id, earlier) for earlier in range(image)):
            first[object_id] = image
    for a, b in pairs(sorted(first), rng):
        if abs(times[moments.shown[first[a]]] - times[moments.shown[first[b]]]) < APART_S:
            continue
        names = (moments.refer(a, rng), moments.refer(b, rng))
        either = f"the {names[0]} or the {names[1]}"
        question = pick((f"Which came into view first, {either}?", f"Which is seen first in the video, {either}?",
                         f"Over the images in their order, which appears first, {either}?"), rng)  # fmt: skip
        answer = names[0] if first[a] < first[b] else names[1]
        yield Turn(question, answer, "appearance_order", "reasoning", "choice", options=names)


def count_over_images(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """How many different ones do the images show together (V7)? More than any one of them; each well seen somewhere.

    The cue is what the fullest single image would say.
    """
    if len(moments) < 2 or not moments.is_still:
        return
    clear = {object_id for seen in moments.seen for object_id in (o.id for o in seen.nameable)}
    nouns: dict[str, list[int]] = {}
    for object_id, state in moments.states.items():
        for noun in (plural(state.category), f"{state.colour} objects", "objects"):
            nouns.setdefault(noun, []).append(object_id)
    for noun, members in shuffled(sorted(nouns.items()), rng):
        doubtful = [i for i in members if i not in clear and not _is_never_seen(moments, i)]
        counted = [i for i in members if i in clear]
        fullest = max(sum(i in {o.id for o in seen.nameable} for i in counted) for seen in moments.seen)
        if doubtful or len(counted) <= fullest:
            continue
        question = pick(
            (
                f"How many different {noun} do the images show together?",
                f"Counting each one once, how many {noun} are there over all the images?",
                f"How many {noun} are there in all, over the whole of what the images show?",
            ),
            rng,
        )
        answer, cues = str(len(counted)), {"one_image": str(fullest)}
        yield Turn(question, answer, "count_over_images", "reasoning", "number", tolerance=0.0, cues=cues)


def _is_never_seen(moments: Moments, object_id: int) -> bool:
    return all(moments.is_hidden(object_id, image) for image in range(len(moments)))


def out_of_sight(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Which of the things seen earlier can't be seen in the last image (V10)? One of two or three."""
    if len(moments) < 2 or not moments.is_told_in_order:
        return
    last = len(moments) - 1
    earlier = {i for objects in moments.nameable[:last] for i in objects}
    gone = [i for i in sorted(earlier) if moments.is_hidden(i, last)]
    plain = [i for i in sorted(earlier) if i in moments.nameable[last]]
    for object_id in shuffled(gone, rng):
        others = shuffled(plain, rng)[:2]
        if not others:
            return
        options = tuple(moments.refer(i, rng) for i in shuffled([object_id, *others], rng))
        answer = next(name for name in options if name in moments.references(object_id))
        question = pick(
            (
                f"Which of these was seen before but can't be seen in the last image: {spoken_list(options)}?",
                f"One of these is no longer visible in the last image. Which: {spoken_list(options)}?",
            ),
            rng,
        )
        yield Turn(question, answer, "out_of_sight", "reasoning", "choice", options=options)


def hidden_place(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Point to where something is that the last image does not show (V10): seen before, and now behind something.

    Its whole box lies within the image; the region is the box's outline.
    """
    if len(moments) < 2 or not moments.is_told_in_order:
        return
    last = len(moments) - 1
    earlier = {i for objects in moments.nameable[:last] for i in objects}
    for object_id in shuffled(sorted(i for i in earlier if moments.is_hidden(i, last)), rng):
        view, state = moments.observation(last).view, moments.state(object_id, last)
        corners = view.to_camera(state.box.corners())
        if corners[:, 2].min() <= 0:
            continue
        height, width = moments.observation(last).ids.shape
        outline = view.camera.project(corners)
        if np.any(outline < 0) or np.any(outline > [width, height]):
            continue
        center = view.camera.project(view.to_camera(state.box.center)) / [width, height]
        name = moments.refer(object_id, rng)
        question = pick(
            (
                f"The {name} can't be seen in the last image. Point to where it is hidden there.",
                f"Where in the last image is the {name}, which something hides there?",
            ),
            rng,
        )
        place = Point(float(center[0]), float(center[1]))
        region = Region.from_mask(inside_hull(outline, height, width))
        yield Turn(question, "<place:0>", "hidden_place", "grounding", "point", (place,), region=region)
