"""Question families over several images: of one moment, of a video, of a task being carried out.

As for single views, each family is a generator of turns, lazily and in random order, from what a sample shows
(`Moments`). Families V2, V8, G10 and G11 of the data notes need fronts, walkable space, parts and grippers, which no
`History` tells of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gemvlm.curation.questions import moved, plans, several_views, video
from gemvlm.curation.questions.family import Family, draw, families_of, known
from gemvlm.curation.questions.moments import Moments, WithoutAt
from gemvlm.sample import Turn
from gemvlm.worlds.observation import History

HISTORY_FAMILIES: dict[str, Family[Moments]] = families_of(
    {
        "grounding": (several_views.same_point, video.hidden_place, moved.trajectory),
        "reasoning": (
            several_views.camera_turn,
            several_views.camera_move,
            several_views.after_moving,
            several_views.perspective_across,
            several_views.view_showing,
            several_views.view_overlap,
            video.appearance_order,
            video.count_over_images,
            video.out_of_sight,
            moved.what_moved,
            moved.did_it_move,
            moved.moved_way,
            moved.moved_far,
        ),
        "planning": (
            plans.next_step,
            plans.remaining_steps,
            plans.what_was_done,
            plans.has_succeeded,
            plans.can_lift_now,
            plans.consequence_now,
            plans.frame_order,
            plans.progress,
        ),
    }
)


def write_history_questions(
    history: History,
    key: Iterable[int],
    families: Iterable[str] | None = None,
    turns_per_family: int | Mapping[str, int] = 2,
    shown: Sequence[int] | None = None,
    ordered: bool = True,
    without: WithoutAt | None = None,
) -> list[Turn]:
    """Up to `turns_per_family` turns of each of `families`, by default all, on the images that a sample shows.

    `shown` are the indices of the observations that it holds, in its order (all, by default): those left out are known
    but not seen, so a task's later steps must be planned. With `ordered` False the questions don't take the sample's
    order for that of time. `key` seeds each family by itself. `without(index, id)` simulates a removal at an
    observation. ValueError for an unknown family, or an index that the history does not have.
    """
    chosen = known(HISTORY_FAMILIES if families is None else families, HISTORY_FAMILIES)
    count = len(history.observations)
    shown = tuple(range(count) if shown is None else shown)
    if not shown or not all(0 <= index < count for index in shown):
        raise ValueError(f"shown: {shown} must name at least one of the history's {count} observations (from 0)")
    return draw(chosen, Moments(history, shown, ordered, without), key, turns_per_family)
