"""What the sources of simulated tasks share: from a task's history to samples of one picture, several places, a video.

Scenes hold things that are moved (a mug), fixtures (a drawer) and the room. Questions that name, place or compare are
about the first two; questions about lifting and standing need to know which is which.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gemvlm.curation.questions import write_questions
from gemvlm.curation.questions.histories import write_history_questions
from gemvlm.curation.questions.wording import pick, shuffled, with_options
from gemvlm.sample import Frame, Provenance, Sample, Turn
from gemvlm.worlds.observation import History, Observation

ROOM = frozenset({"floor", "wall", "table", "table edge", "desk", "robot"})
DESCRIPTION = ("describe",)
NAMING = (
    *("point", "box", "point_relation", "point_all", "point_ordinal", "point_compared", "point_superlative"),
    *(
        "point_on_top",
        "name_choice",
        "colour",
        "shape",
        "object_at",
        "count",
        "exists",
        "occluded",
        "more_of",
        "inside",
    ),
    *("left_right", "above_below", "closer", "nearest_of", "larger", "nearer_to", "perspective", "depth_order"),
    *("nearest_choice", "neighbour_choice", "taller", "longer", "direction_seen", "direction_standing"),
    *("clock_direction", "turn_angle", "object_depth", "distance", "point_depth", "gap_cm", "size_cm", "size_choice"),
)
HANDLING = ("free_space", "point_between", "support", "removal_order", "can_lift", "fits")
SEEING = (
    *("same_point", "hidden_place", "trajectory", "camera_turn", "camera_move", "after_moving", "perspective_across"),
    *("view_showing", "view_overlap", "appearance_order", "out_of_sight"),
    *("what_moved", "did_it_move", "moved_way", "moved_far"),
)
PLANNING = ("next_step", "remaining_steps", "what_was_done", "has_succeeded", "can_lift_now", "frame_order", "progress")
OF_THE_END = ("next_step", "remaining_steps", "has_succeeded", "progress")
"""Those of them that only a task whose end can be seen allows."""
VAGUE = re.compile(r"\bobjects?\b(?! at <)")
"""What a question must not say: "the leftmost object" could be the robot or half of a thing."""
TASK_OPTIONS = 4


@dataclass(frozen=True)
class Told:
    """A history, and what its questions need besides.

    `done[i]` says whether the task is done at observation i (None if that can't be seen), `other_tasks` are
    instructions that this scene would allow and that were not followed.
    """

    history: History
    done: tuple[bool | None, ...]
    other_tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """What all samples of one source and episode have in common."""

    source: str
    scene: str
    provenance: Provenance
    turns_per_family: int = 2

    def key(self, what: str) -> tuple[int, int]:
        """Seeds the questions of one sample."""
        return zlib.crc32(self.scene.encode()), zlib.crc32(what.encode())

    def sample(self, what: str, frames: Sequence[Frame], turns: Sequence[Turn], **meta: object) -> Sample:
        name = f"{self.source}-{self.scene}-{what}"
        return Sample(name, tuple(frames), tuple(turns), self.scene, self.source, meta, self.provenance)


def picture_sample(sheet: Sheet, what: str, observation: Observation, extra: Sequence[Turn] = ()) -> Sample:
    """One picture with questions about what stands where, and `extra` turns."""
    key, count = sheet.key(what), sheet.turns_per_family
    turns = [
        *write_questions(as_objects(observation, with_robot=True), key, DESCRIPTION, 1),
        *_clear(write_questions(as_objects(observation), key, NAMING, 2 * count), count),
        *_clear(write_questions(observation, key, HANDLING, 2 * count), count),
        *extra,
    ]
    return sheet.sample(what, [frame_of(observation)], turns)


def views_sample(sheet: Sheet, what: str, observations: Sequence[Observation]) -> Sample:
    """One moment from several places."""
    history = History(tuple(as_objects(observation) for observation in observations))
    turns = _clear(
        write_history_questions(history, sheet.key(what), SEEING, 2 * sheet.turns_per_family), sheet.turns_per_family
    )
    return sheet.sample(what, [frame_of(observation) for observation in observations], turns)


def video_sample(sheet: Sheet, what: str, told: Told, shown: Sequence[int], ordered: bool = True) -> Sample:
    """Some observations of a history: what moved, what was done, what remains, which task it was.

    Questions about plans get the history as it is, in which fixtures can't be moved: no wrong step puts a drawer on a
    plate.
    """
    history, key, count = told.history, sheet.key(what), sheet.turns_per_family
    named = replace(history, observations=tuple(as_objects(o) for o in history.observations))
    turns = _clear(write_history_questions(named, key, SEEING, 2 * count, shown, ordered), count)
    plans = [name for name in PLANNING if told.done[-1] is not None or name not in OF_THE_END]
    turns += _clear(write_history_questions(history, key, plans, 2 * count, shown, ordered), count)
    rng = np.random.default_rng((*key, 1))
    if ordered:
        turns += [*task_name(told, shown, rng), *task_done(told, shown, rng)]
    times = history.times_s if ordered else None
    frames = [
        frame_of(history.observations[index], None if times is None else times[index] - times[shown[0]])
        for index in shown
    ]
    return sheet.sample(what, frames, turns, task=history.task)


def task_name(told: Told, shown: Sequence[int], rng: np.random.Generator) -> Iterator[Turn]:
    """Which task do the images show (P12)? From start to a seen success; the others fit the same scene."""
    if len(shown) < 2 or told.done[shown[0]] is not False or told.done[shown[-1]] is not True or not told.other_tasks:
        return
    wrong = shuffled(sorted(set(told.other_tasks)), rng)[: TASK_OPTIONS - 1]
    options = tuple(shuffled([told.history.task, *wrong], rng))
    question = pick(
        (
            "Which task is carried out over these images?",
            "The images show a task from its start to its end. Which one?",
            "What was the instruction that is followed in these images?",
        ),
        rng,
    )
    question = with_options(question, options)
    yield Turn(question, told.history.task, "task_name", "planning", "choice", options=options)


def task_done(told: Told, shown: Sequence[int], rng: np.random.Generator) -> Iterator[Turn]:
    """Is the task done in an image (P4)? By the simulator's own predicate, at the first and at the last moment shown.

    Only of tasks whose end can be seen, and in pairs of one yes and one no. The cue is the time.
    """
    if len(shown) < 2 or told.done[shown[0]] is not False or told.done[shown[-1]] is not True:
        return
    for image, answer in shuffled([(0, "no"), (len(shown) - 1, "yes")], rng):
        here = f"image {image + 1}"
        question = pick(
            (
                f"The task is: {told.history.task}. Is it done in {here}?",
                f"The instruction is: {told.history.task}. Does {here} show it carried out?",
            ),
            rng,
        )
        yield Turn(question, answer, "task_done", "planning", "yes_no", cues={"time": "no" if image == 0 else "yes"})


def _clear(turns: Sequence[Turn], count: int) -> list[Turn]:
    """The first `count` turns of each family that are not vague."""
    kept: dict[str, list[Turn]] = {}
    for turn in turns:
        if not VAGUE.search(turn.question):
            kept.setdefault(turn.family, []).append(turn)
    return [turn for family in kept.values() for turn in family[:count]]


def as_objects(observation: Observation, with_robot: bool = False) -> Observation:
    """The same with fixtures as things to ask about; the room stays what things stand in."""
    room = ROOM - {"robot"} if with_robot else ROOM
    states = tuple(replace(state, movable=state.category not in room) for state in observation.objects)
    return replace(observation, objects=states)


def frame_of(observation: Observation, time_s: float | None = None) -> Frame:
    return Frame(observation.image, observation.depth, observation.view, time_s=time_s)
