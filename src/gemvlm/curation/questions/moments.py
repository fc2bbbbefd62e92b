"""What a sample shows of a history: some of its observations, in some order, and what may be said of them in words.

Images are counted as the sample holds them ("image 1" is the first); what happens in observations that are not shown
is known to whoever writes the questions, so that "what comes next" has a true answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from gemvlm.curation.questions.visibility import INVISIBLE_FRACTION, Seen, SeenObject
from gemvlm.curation.questions.wording import pick, shuffled
from gemvlm.worlds.observation import History, ObjectState, Observation

WithoutAt = Callable[[int, int], Mapping[int, float]]
"""At an observation (by its index in the history) takes an object away: how far each other one moves, in metres."""

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


@dataclass(frozen=True, eq=False)
class Moments:
    """The observations of a history that a sample shows, by index, in the order in which it holds them.

    `ordered` says whether the sample's order is known to be that of time. Images are counted from 0 here, from 1 in
    words.
    """

    history: History
    shown: tuple[int, ...]
    ordered: bool = True
    without: WithoutAt | None = None

    @cached_property
    def seen(self) -> tuple[Seen, ...]:
        return tuple(Seen(self.history.observations[index]) for index in self.shown)

    def __len__(self) -> int:
        return len(self.shown)

    @property
    def is_still(self) -> bool:
        """Nothing is done to anything: the images differ by the camera alone."""
        return not self.history.events

    @property
    def is_told_in_order(self) -> bool:
        return self.ordered and self.history.times_s is not None and self.shown == tuple(sorted(set(self.shown)))

    def observation(self, image: int) -> Observation:
        return self.history.observations[self.shown[image]]

    def image_pairs(self, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Two images, the earlier one first, in random order."""
        yield from shuffled(list(combinations(range(len(self)), 2)), rng)

    def image_name(self, image: int, rng: np.random.Generator) -> str:
        """ "image 2", "the second image" or "the last image"."""
        if len(self) == 1:
            return "the image"
        names = [f"image {image + 1}"]
        if image < len(ORDINALS):
            names.append(f"the {ORDINALS[image]} image")
        if image == len(self) - 1:
            names.append("the last image")
        return pick(names, rng)

    @cached_property
    def states(self) -> dict[int, ObjectState]:
        """Movable objects of which some image shows a pixel, as the first such image has them."""
        found: dict[int, ObjectState] = {}
        for seen in self.seen:
            for o in seen.objects:
                found.setdefault(o.id, o.state)
        return dict(sorted(found.items()))

    @cached_property
    def _matches(self) -> Counter[str]:
        phrases: Counter[str] = Counter()
        for state in self.states.values():
            phrases.update({state.category, state.name})
        return phrases

    def references(self, object_id: int) -> tuple[str, ...]:
        """Phrases that fit this object and no other that any image shows: colour and shape, and the shape alone."""
        state = self.states[object_id]
        return tuple(phrase for phrase in (state.name, state.category) if self._matches[phrase] == 1)

    def refer(self, object_id: int, rng: np.random.Generator) -> str:
        return pick(self.references(object_id), rng)

    @cached_property
    def nameable(self) -> tuple[dict[int, SeenObject], ...]:
        """For each image the objects that a question may be about there, by id: well seen, with a unique reference."""
        return tuple({o.id: o for o in seen.nameable if self.references(o.id)} for seen in self.seen)

    @cached_property
    def nameable_somewhere(self) -> tuple[int, ...]:
        return tuple(sorted({object_id for objects in self.nameable for object_id in objects}))

    def is_hidden(self, object_id: int, image: int) -> bool:
        """Nobody could find it in this image: out of view, or behind something but for a few pixels."""
        o = self.seen[image].by_id.get(object_id)
        return o is None or (o.state.visible_fraction <= INVISIBLE_FRACTION and not o.is_large_enough)

    def state(self, object_id: int, image: int) -> ObjectState:
        """The object as it is then, seen or not."""
        return next(o for o in self.observation(image).objects if o.id == object_id)

    def is_within_an_act(self, image: int) -> bool:
        return any(event.start < self.shown[image] < event.end for event in self.history.events)

    def is_at_rest(self, image: int) -> bool:
        """Nothing is being moved, and nothing is held."""
        objects = (o for o in self.observation(image).objects if o.movable)
        return not self.is_within_an_act(image) and all(o.hanging or o.supported_by for o in objects)

    def is_in_the_air(self, object_id: int, image: int) -> bool:
        state = self.state(object_id, image)
        return not state.supported_by and not state.hanging


def spoken_list(words: tuple[str, ...]) -> str:
    """ "a", "a or b", "a, b or c"."""
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
