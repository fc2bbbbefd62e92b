"""Question families: rules that turn the truth behind an image into questions with answers.

Each family is a generator of turns from what is seen (`Seen`), lazily and in random order, so that a caller takes as
many as it wants. The families, their rules and margins are those of `docs/data.md`. Which rule of the data notes each
family carries out:

    G1 point                           R1 closer, nearest_choice          R9  inside
    G2 point_all                       R2 nearest_of, depth_order         R10 support
    G3 box                             R3 object_depth, point_depth       R11 size_cm, size_choice
    G4 point_relation, point_compared  R4 distance, gap_cm                R12 larger, taller, longer
    G5 point_ordinal                   R5 nearer_to, neighbour_choice     R13 count, count_beside, more_of, exists
    G6 point_extremum,                 R6 left_right                      R15 clock_direction, turn_angle
       point_superlative               R7 direction_seen (E),             R16 gap_passes
    G7 free_space                         direction_standing (O)          R18 occluded
    G8 fits                            R8 above_below                     V1  perspective
    G9 point_between, point_on_top,                                       P5  can_lift, removal_order
       point_under                                                        P6  consequence
    G14 colour, shape, object_at, name_choice

G10 (parts), G11 (grasps) and R17 (reach) need parts, grippers and arms that an `Observation` does not know; R14 (rooms)
needs several views; `histories.py` holds the rules of several images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gemvlm.curation.questions import (
    attributes,
    description,
    directions,
    grounding,
    measures,
    planning,
    referring,
    relations,
    spots,
    surfaces,
)
from gemvlm.curation.questions.family import Family, draw, families_of, known
from gemvlm.curation.questions.visibility import Seen, Without
from gemvlm.sample import Turn
from gemvlm.worlds.observation import Observation

FAMILIES: dict[str, Family[Seen]] = families_of(
    {
        "description": (description.describe, description.places),
        "grounding": (
            grounding.point,
            grounding.box,
            grounding.point_relation,
            grounding.point_extremum,
            surfaces.free_space,
            referring.point_all,
            referring.point_ordinal,
            referring.point_compared,
            referring.point_superlative,
            spots.point_between,
            spots.point_on_top,
            spots.point_under,
            attributes.name_choice,
        ),
        "reasoning": (
            attributes.colour,
            attributes.shape,
            attributes.object_at,
            attributes.count,
            attributes.exists,
            attributes.occluded,
            relations.left_right,
            relations.above_below,
            relations.closer,
            relations.nearest_of,
            relations.larger,
            relations.nearer_to,
            relations.perspective,
            measures.object_depth,
            measures.distance,
            planning.support,
            attributes.count_beside,
            attributes.more_of,
            relations.depth_order,
            relations.nearest_choice,
            relations.neighbour_choice,
            relations.taller,
            relations.longer,
            relations.inside,
            directions.direction_seen,
            directions.direction_standing,
            directions.clock_direction,
            directions.turn_angle,
            measures.point_depth,
            measures.gap_cm,
            measures.size_cm,
            measures.size_choice,
            spots.gap_passes,
        ),
        "planning": (planning.removal_order, planning.can_lift, planning.consequence, surfaces.fits),
    }
)


CORE_FAMILIES = (
    *("describe", "point", "box", "point_relation", "point_extremum", "free_space"),
    *("colour", "shape", "object_at", "count", "exists", "occluded"),
    *("left_right", "above_below", "closer", "nearest_of", "larger", "nearer_to", "perspective"),
    *("object_depth", "distance", "support", "removal_order", "can_lift", "consequence", "fits"),
)
"""What the recipes of small models are made of. The list is closed: a new family must not change their data."""


def write_questions(
    observation: Observation,
    key: Iterable[int],
    families: Iterable[str] | None = None,
    turns_per_family: int | Mapping[str, int] = 2,
    without: Without | None = None,
) -> list[Turn]:
    """Up to `turns_per_family` turns (one count, or one by family) of each of `families` on one view.

    By default the families are `CORE_FAMILIES`; `FAMILIES` is all. `key` seeds each family by itself, so that adding
    one changes no other. `without` is the world's own simulation of a removal; the family `consequence` is silent
    without it. ValueError for an unknown family.
    """
    chosen = known(CORE_FAMILIES if families is None else families, FAMILIES)
    return draw(chosen, Seen(observation, without), key, turns_per_family)
