"""The words in which a model is asked to point, to box, to plan and to judge: those that it has been taught with, and
no others.

They stand in `curation/questions`: families `point`, `point_all`, `box`, `removal_order`, `remaining_steps` and
`has_succeeded`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_EXPRESSION = 500
"""Characters."""
NOTHING = ("nothing", "nothing, it is done")

_ARTICLE = re.compile(r"^(the|a|an)\s+", re.IGNORECASE)
_LIFT = re.compile(r"^(lift|pick up|free)\s+(the\s+)?(?P<name>.+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """Steps toward a goal, first to last, as the model words them; none if it says that nothing is left to do.

    `text` is the whole reply. `finished` is False where it was cut off: the last step may be a part of one.
    """

    steps: tuple[str, ...]
    text: str
    finished: bool = True


def point_to(expression: str) -> str:
    return f"Point to the {noun_phrase(expression)}."


def point_to_every(expression: str) -> str:
    return f"Point to every {noun_phrase(expression)}."


def box_of(expression: str) -> str:
    return f"Box the visible part of the {noun_phrase(expression)}."


def is_done(step: str, images: int) -> str:
    """Asks, for yes or no, whether a step has been done."""
    return f"The step is: {_checked(step, 'step', 'lift the red mug')}. Has it been done in {_shown(images)}?"


def steps_to(goal: str, images: int) -> str:
    """Asks what must be removed if the goal is to lift something, else for the steps that remain."""
    goal = _checked(goal, "goal", "lift the red mug")
    if lift := _LIFT.match(goal):
        return f"What must be removed, in order, to lift the {lift['name']}?"
    return f"The task is: {goal}. Which steps remain after what {_shown(images)} shows, in order?"


def _shown(images: int) -> str:
    return "the image" if images == 1 else "the last image"


def read_plan(goal: str, reply: str, finished: bool = True) -> Plan:
    """Undoes the writing of an answer of those families."""
    text = reply.strip().rstrip(".")
    if not text or text.lower() in NOTHING:
        return Plan((), reply, finished)
    if _LIFT.match(_checked(goal, "goal", "lift the red mug")):
        return Plan(tuple(f"remove the {name.strip()}" for name in text.split(",") if name.strip()), reply, finished)
    return Plan(tuple(step.strip() for step in re.split(r",\s*then\s+", text) if step.strip()), reply, finished)


def noun_phrase(expression: str) -> str:
    """ "the red mug." → "red mug". ValueError if nothing is named, or far too much."""
    return _ARTICLE.sub("", _checked(expression, "expression", "red mug"))


def _checked(words: str, name: str, example: str) -> str:
    if len(words) > LONGEST_EXPRESSION:
        raise ValueError(f"{name}: {len(words)} characters; say it in at most {LONGEST_EXPRESSION}")
    words = " ".join(words.split()).rstrip(".?! ")
    if not _ARTICLE.sub("", words + " ").strip():
        raise ValueError(f'{name}: empty; name it in words, for instance "{example}"')
    return words
