"""The steps of a task: which comes next, which remain, what was done, whether it is done, what can be done now.

Rules P1 to P6 and P9 of the data notes. A history's events are the steps; a sample that shows only its first
observations leaves the rest to be planned. `planning.py` holds what one view alone can answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gemvlm.curation.questions.moments import Moments
from gemvlm.curation.questions.moved import has_stayed
from gemvlm.curation.questions.planning import MOVED_M, STILL_M
from gemvlm.curation.questions.wording import pick, shuffled, with_options
from gemvlm.sample import Turn
from gemvlm.worlds.observation import Event

DONE = "nothing, it is done"
MOST_STEPS = 8
LEAST_PROGRESS = 0.15
OPTIONS = 4
ANOTHER = 0.75
"""Share of the answers no about success that speak of another object in the same image: there, time says nothing."""


def next_step(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Which step comes after the last image (P1)? Among other steps of the plan and steps with another object.

    The cue is the step that says most of what the task says: the last one.
    """
    history = moments.history
    if not history.task or not moments.is_told_in_order or moments.is_within_an_act(len(moments) - 1):
        return
    to_come = _to_come(moments)
    if not to_come and not _all_done(moments):
        return
    answer = to_come[0].words if to_come else DONE
    steps = [event.words for event in history.events]
    others = [words for words in dict.fromkeys(steps) if words != answer]
    others += [
        words for words in _with_another_object(moments, answer, list(moments.states), rng) if words not in steps
    ]
    wrong = shuffled(others, rng)[: OPTIONS - 2] + ([] if answer == DONE else [DONE])
    options = tuple(shuffled([answer, *wrong], rng))
    if len(options) < 3:
        return
    here = moments.image_name(len(moments) - 1, rng)
    question = pick(
        (
            f"The task is: {history.task}. What is the next step after what {here} shows?",
            f"The goal is: {history.task}. Which step follows what {here} shows?",
            f"The instruction is: {history.task}. As things are in {here}, what must be done next?",
        ),
        rng,
    )
    cues = {"task": steps[-1]} if steps[-1] in options else {}
    yield Turn(with_options(question, options), answer, "next_step", "planning", "choice", options=options, cues=cues)


def remaining_steps(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """All steps that remain after the last image, in order (P2); eight at most."""
    history = moments.history
    if not history.task or not moments.is_told_in_order or moments.is_within_an_act(len(moments) - 1):
        return
    to_come = _to_come(moments)
    if (not to_come and not _all_done(moments)) or len(to_come) > MOST_STEPS:
        return
    here = moments.image_name(len(moments) - 1, rng)
    question = pick(
        (
            f"The task is: {history.task}. Which steps remain after what {here} shows, in order?",
            f"The goal is: {history.task}. List the steps that are still to be done after what {here} shows.",
        ),
        rng,
    )
    answer = ", then ".join(event.words for event in to_come) if to_come else DONE
    yield Turn(question, answer, "remaining_steps", "planning", "text")


def what_was_done(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """What was done between two images (P3)? One act, begun and ended between them; the others elsewhere or nowhere."""
    if not moments.is_told_in_order:
        return
    for a, b in moments.image_pairs(rng):
        first, last = moments.shown[a], moments.shown[b]
        between = [e for e in moments.history.events if e.start < last and e.end > first]
        if len(between) != 1 or between[0].start < first or between[0].end > last:
            continue
        (event,) = between
        if event.object_id not in moments.nameable[a] or event.object_id not in moments.nameable[b]:
            continue
        if not event.succeeded:
            continue
        done = {e.words for e in moments.history.events}
        others = [words for words in sorted(done) if words != event.words]
        still = [i for i in moments.states if has_stayed(moments, i, a, b)]
        others += [words for words in _with_another_object(moments, event.words, still, rng) if words not in done]
        options = tuple(shuffled([event.words, *shuffled(others, rng)[: OPTIONS - 1]], rng))
        if len(options) < 2:
            continue
        one, two = moments.image_name(a, rng), moments.image_name(b, rng)
        question = pick(
            (
                f"What was done between {one} and {two}?",
                f"Which of these happened between {one} and {two}?",
                f"Which act was carried out after {one} and before {two}?",
            ),
            rng,
        )
        question = with_options(question, options)
        yield Turn(question, event.words, "what_was_done", "planning", "choice", options=options)


def has_succeeded(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Is it done by then (P4)? In pairs: yes in an image after a step that came off; no after one that failed, before
    it, or of another object in the same image.

    Where the words are true for another reason, or are no longer true, nothing is asked. The cue is the time: yes for
    the later half of the images.
    """
    if not moments.is_told_in_order:
        return
    yes, no = [], []
    for event in moments.history.events:
        if event.action == "push" or not _is_nameable_target(moments, event):
            continue
        for image, index in enumerate(moments.shown):
            if event.object_id not in moments.nameable[image]:
                continue
            holds = _holds(moments, event, image)
            if index >= event.end and event.succeeded and holds:
                yes.append((event, image))
            elif not holds and (index <= event.start or (index >= event.end and not event.succeeded)):
                no.append((event, image))
    failed = [(event.words, image) for event, image in no if moments.shown[image] >= event.end]
    earlier = shuffled([(event.words, image) for event, image in no if moments.shown[image] <= event.start], rng)
    for event, seen_at in shuffled(yes, rng):
        other = _another_one(moments, event, seen_at, rng)
        if failed:
            negative = failed.pop(0)
        elif other and (not earlier or rng.random() < ANOTHER):
            negative = (other, seen_at)
        elif earlier:
            negative = earlier.pop(0)
        else:
            return
        for (words, image), answer in shuffled([((event.words, seen_at), "yes"), (negative, "no")], rng):
            here = moments.image_name(image, rng)
            question = pick(
                (
                    f"The step is: {words}. Has it been done in {here}?",
                    f"Is this step complete in {here}: {words}?",
                    f"Judging by {here}, has this step succeeded: {words}?",
                ),
                rng,
            )
            cues = {"time": "yes" if 2 * image >= len(moments) else "no"}
            yield Turn(question, answer, "has_succeeded", "planning", "yes_no", cues=cues)


def can_lift_now(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Can it be lifted without moving anything else, as things are in one of the images (P5)?

    In pairs of one yes and one no: of the same object at two moments where that is possible.
    """
    yes: list[tuple[int, int]] = []
    no: list[tuple[int, int]] = []
    for image, seen in enumerate(moments.seen):
        if not moments.is_at_rest(image):
            continue
        for object_id, o in moments.nameable[image].items():
            loads = seen.carried[object_id]
            if o.state.hanging:
                continue
            if not loads:
                yes.append((object_id, image))
            elif all(load in moments.nameable[image] for load in loads):
                no.append((object_id, image))
    for negative in shuffled(no, rng):
        same = [positive for positive in yes if positive[0] == negative[0]]
        if not (same or yes):
            return
        positive = pick(same or yes, rng)
        for (object_id, image), answer in shuffled([(positive, "yes"), (negative, "no")], rng):
            name, here = moments.refer(object_id, rng), moments.image_name(image, rng)
            question = pick(
                (
                    f"As things are in {here}, can the {name} be lifted without moving anything else?",
                    f"Is the {name} free to lift in {here}?",
                ),
                rng,
            )
            o = moments.nameable[image][object_id]
            middle = float(np.median([other.y for other in moments.nameable[image].values()]))
            yield Turn(question, answer, "can_lift_now", "planning", "yes_no",
                       cues={"height": "yes" if o.y < middle else "no"})  # fmt: skip


def consequence_now(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """If X were taken away as things are in an image, would Y move (P6)? By simulation: 3 cm or more, or under 5 mm.

    In pairs of one yes and one no about the same X, on one side of it in the image if that can be; needs
    `Moments.without`.
    """
    if moments.without is None:
        return
    for image in shuffled(range(len(moments)), rng):
        seen, objects = moments.seen[image], moments.nameable[image]
        if not moments.is_at_rest(image):
            continue
        for taken in shuffled([i for i in objects if seen.carried[i] and not objects[i].state.hanging], rng):
            moved_m = moments.without(moments.shown[image], taken)
            others = [i for i in objects if i != taken and i in moved_m]
            moving = [i for i in others if moved_m[i] > MOVED_M]
            still = [i for i in others if moved_m[i] < STILL_M]
            if not moving or not still:
                continue
            mover = pick(moving, rng)
            above = [i for i in still if (objects[i].y < objects[taken].y) == (objects[mover].y < objects[taken].y)]
            for object_id, answer in shuffled([(mover, "yes"), (pick(above or still, rng), "no")], rng):
                first, second = moments.refer(taken, rng), moments.refer(object_id, rng)
                here = moments.image_name(image, rng)
                question = pick(
                    (
                        f"If the {first} were taken away as things are in {here}, would the {second} move?",
                        f"Take {here} as it is. Would the {second} move if the {first} were taken away?",
                    ),
                    rng,
                )
                cues = {"height": "yes" if objects[object_id].y < objects[taken].y else "no"}
                yield Turn(question, answer, "consequence_now", "planning", "yes_no", cues=cues)
            break


def frame_order(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """Which of two images of a task, shown in no order, is the later one (P9)? A step and 15 % of the steps apart."""
    history = moments.history
    if moments.ordered or not history.task or len(moments) != 2:
        return
    done = [sum(event.end <= index for event in history.events) for index in moments.shown]
    if abs(done[0] - done[1]) < max(1, LEAST_PROGRESS * len(history.events)) or not _all_succeeded(moments):
        return
    question = pick(
        (
            f"The two images are in no particular order. The task is: {history.task}. Which image was taken later?",
            f"The images may be in any order. The task is: {history.task}. In which image is more of it done?",
        ),
        rng,
    )
    answer = f"image {int(np.argmax(done)) + 1}"
    yield Turn(question, answer, "frame_order", "planning", "choice", options=("image 1", "image 2"))


def progress(moments: Moments, rng: np.random.Generator) -> Iterator[Turn]:
    """How many of a plan's steps are done (P9)? The steps are given."""
    history = moments.history
    steps = history.events
    if not history.task or not moments.is_told_in_order or not _all_succeeded(moments) or len(steps) < 2:
        return
    listed = "; ".join(f"{number + 1}. {event.words}" for number, event in enumerate(steps))
    for image in shuffled(range(len(moments)), rng):
        if moments.is_within_an_act(image):
            continue
        done = sum(event.end <= moments.shown[image] for event in steps)
        here = moments.image_name(image, rng)
        question = pick(
            (
                f"A task has these steps: {listed}. How many of them are done in {here}?",
                f"The steps are: {listed}. How many have been carried out in {here}?",
            ),
            rng,
        )
        yield Turn(question, str(done), "progress", "planning", "number", tolerance=0.0)


def _to_come(moments: Moments) -> tuple[Event, ...]:
    return tuple(event for event in moments.history.events if event.start >= moments.shown[-1])


def _all_succeeded(moments: Moments) -> bool:
    return all(event.succeeded for event in moments.history.events)


def _all_done(moments: Moments) -> bool:
    """Every step came off and is over by the last image."""
    return _all_succeeded(moments) and all(event.end <= moments.shown[-1] for event in moments.history.events)


def _is_nameable_target(moments: Moments, event: Event) -> bool:
    return event.target_id is None or event.target_id not in moments.states or bool(moments.references(event.target_id))


def _holds(moments: Moments, event: Event, image: int) -> bool:
    """What the step is to bring about is so: the object is in the air, or rests on its target alone."""
    if event.target_id is None:
        return moments.is_in_the_air(event.object_id, image)
    return moments.state(event.object_id, image).supported_by == (event.target_id,)


def _another_one(moments: Moments, event: Event, image: int, rng: np.random.Generator) -> str | None:
    """The step with something else well seen in the object's place, which does not rest there; None if all do."""
    ids = [
        i
        for i in moments.nameable[image]
        if i not in (event.object_id, event.target_id)
        and not moments.is_in_the_air(i, image)
        and event.target_id not in moments.state(i, image).supported_by
    ]
    name = moments.states[event.object_id].name
    if not ids or f"the {name}" not in event.words:
        return None
    return event.words.replace(f"the {name}", f"the {moments.states[pick(ids, rng)].name}", 1)


def _with_another_object(moments: Moments, words: str, ids: Sequence[int], rng: np.random.Generator) -> list[str]:
    """The step with a name in it changed for that of another movable object in view, of the given ids."""
    names = {i: state.name for i, state in moments.states.items()}
    found = []
    for name in (n for n in names.values() if f"the {n}" in words):
        for other in shuffled([names[i] for i in ids if f"the {names[i]}" not in words], rng)[:2]:
            found.append(words.replace(f"the {name}", f"the {other}"))
    return found
