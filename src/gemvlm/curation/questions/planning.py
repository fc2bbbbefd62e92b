"""What may be done and what would follow, from the graph of who rests on whom and from simulation.

Rules R10 (support), P5 (feasibility) and P6 (consequence) of the data notes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemvlm.curation.questions.visibility import Seen, SeenObject
from gemvlm.curation.questions.wording import pick, shuffled
from gemvlm.sample import Turn

MOVED_M, STILL_M = 0.03, 0.005


def support(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """What an object rests on (R10): its only supporter. Asked where answers differ, one question for each answer."""
    by_supporter: dict[int, list[SeenObject]] = {}
    for o in seen.referable:
        if len(o.state.supported_by) == 1 and o.state.supported_by[0] in seen.by_id:
            by_supporter.setdefault(o.state.supported_by[0], []).append(o)
    answers = {i: name for i in sorted(by_supporter) if (name := _supporter_name(seen, seen.by_id[i]))}
    if len(answers) < 2:
        return
    for supporter in shuffled(sorted(answers), rng):
        name = seen.refer(pick(by_supporter[supporter], rng), rng)
        question = pick((f"What does the {name} rest on?", f"What is directly under the {name}?"), rng)
        yield Turn(question, answers[supporter], family="support", task="reasoning", kind="text")


def _supporter_name(seen: Seen, supporter: SeenObject) -> str | None:
    if not supporter.state.movable:
        return supporter.state.category
    return supporter.full_name if supporter.is_nameable and seen.fits_one(supporter.full_name) else None


def can_lift(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """Can it be lifted without moving anything else (P5)? No if something rests on it; one yes and one no at a time."""
    standing = [o for o in seen.referable if not o.state.hanging]
    burdened = [o for o in standing if seen.carried[o.id] and _all_nameable(seen, seen.carried[o.id])]
    unburdened = [o for o in standing if not seen.carried[o.id]]
    height, size = np.median([o.y for o in standing] or [0]), np.median([o.area for o in standing] or [0])
    for no, yes in zip(shuffled(burdened, rng), shuffled(unburdened, rng), strict=False):
        for o, answer in shuffled([(yes, "yes"), (no, "no")], rng):
            name = seen.refer(o, rng)
            question = pick(
                (f"Can the {name} be lifted without moving anything else?", f"Is the {name} free to lift?"), rng
            )
            cues = {"height": "yes" if o.y < height else "no", "size": "yes" if o.area < size else "no"}
            yield Turn(question, answer, family="can_lift", task="planning", kind="yes_no", cues=cues)


def removal_order(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """What must be taken away, first to last, before an object can be lifted; "nothing" as often as something.

    Asked only if the order is forced: each thing on the pile rests on the one below, one upon another.
    """
    standing = [o for o in seen.referable if not o.state.hanging]
    piles = [(o, order) for o in standing if (order := _forced_order(seen, o))]
    bare = [(o, ["nothing"]) for o in standing if not seen.carried[o.id]]
    for pile, empty in zip(shuffled(piles, rng), shuffled(bare, rng), strict=False):
        for o, order in shuffled([pile, empty], rng):
            name = seen.refer(o, rng)
            question = pick(
                (f"What must be removed, in order, to lift the {name}?", f"To free the {name}, remove what, in order?"),
                rng,
            )
            yield Turn(question, ", ".join(order), family="removal_order", task="planning", kind="text")


def _forced_order(seen: Seen, o: SeenObject) -> list[str]:
    """Names from the top of the pile down to what rests on `o`; empty if there is none, or no single order."""
    names: list[str] = []
    below = o.id
    for _ in seen.all_carried(o.id):
        if len(seen.carried[below]) != 1 or not _all_nameable(seen, seen.carried[below]):
            return []
        (below,) = seen.carried[below]
        load = seen.by_id[below]
        if not seen.fits_one(load.full_name):
            return []
        names.insert(0, load.full_name)
    return names


def _all_nameable(seen: Seen, ids: tuple[int, ...]) -> bool:
    return all(i in seen.by_id and seen.by_id[i].is_nameable for i in ids)


def consequence(seen: Seen, rng: np.random.Generator) -> Iterator[Turn]:
    """If X is taken away, does Y move (P6)? By simulation of one step: yes beyond 3 cm, no under 5 mm, else not asked.

    Pairs of one yes and one no about the same X, where X carries something; needs `Seen.without`.
    """
    if seen.without is None:
        return
    for taken in shuffled([o for o in seen.referable if seen.carried[o.id]], rng):
        moved_m = seen.without(taken.id)
        others = [o for o in seen.referable if o is not taken and o.id in moved_m]
        moving = [o for o in others if moved_m[o.id] > MOVED_M]
        still = [o for o in others if moved_m[o.id] < STILL_M]
        for yes, no in zip(shuffled(moving, rng), shuffled(still, rng), strict=False):
            for o, answer in shuffled([(yes, "yes"), (no, "no")], rng):
                first, second = seen.refer(taken, rng), seen.refer(o, rng)
                question = f"If the {first} is taken away, does the {second} move?"
                cues = {"height": "yes" if o.y < taken.y else "no", "size": "yes" if o.area < taken.area else "no"}
                yield Turn(question, answer, family="consequence", task="planning", kind="yes_no", cues=cues)
