"""The tabletop as a source: stable parts, samples of every sort with their origin, the same bytes when read again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")

from gemvlm.curation.questions import FAMILIES
from gemvlm.curation.source import Rejection, Source
from gemvlm.curation.sources import SOURCES
from gemvlm.curation.sources.tabletop import Tabletop, tabletop_samples

SMALL = Tabletop(scenes=3, first_scene=6, views=1, size=(72, 72), turns_per_family=1)


@pytest.fixture(scope="module")
def found():
    return list(SMALL.read("6-8"))


def test_it_is_a_source_with_stable_parts():
    assert SOURCES["tabletop"] is Tabletop and isinstance(SMALL, Source) and SMALL.name == "tabletop"
    assert Tabletop(scenes=40, first_scene=5).parts() == ["5-20", "21-36", "37-44"]
    with pytest.raises(ValueError, match="no part '0-2'"):
        next(SMALL.read("0-2"))


def test_reading_again_gives_the_same_bytes(found):
    again = list(replace(SMALL, scenes=1, first_scene=7).read("7-7"))
    mine = [item for item in found if item.id.startswith("tabletop-7-")]
    assert [item.id for item in mine] == [item.id for item in again]
    for one, other in zip(mine, again, strict=True):
        if isinstance(one, Rejection):
            assert one == other
            continue
        assert (one.turns, one.meta) == (other.turns, other.meta)
        for a, b in zip(one.frames, other.frames, strict=True):
            assert (a.image.tobytes(), a.depth.values.tobytes()) == (b.image.tobytes(), b.depth.values.tobytes())


def test_samples_say_where_they_come_from(found):
    samples = [item for item in found if not isinstance(item, Rejection)]
    assert len({item.id for item in found}) == len(found) >= 15
    sorts = {s.id.split("-")[2] for s in samples}
    assert sorts == {"0", "views", "walk", "acts", "task", "order"}
    for s in samples:
        assert (
            s.provenance.licence == "Apache-2.0" and s.provenance.version and s.scene == "-".join(s.id.split("-")[:2])
        )
        assert len(s.meta["object_mask"]) == len(s.frames) and s.turns
        for frame in s.frames:
            assert frame.depth.origin.provenance == "simulator" and frame.depth.is_metric and frame.view is not None
        times = [frame.time_s for frame in s.frames]
        told = any(sort in s.id for sort in ("walk", "acts", "task"))
        assert times == sorted(times) and times[0] == 0 if told else times == [None] * len(times)


def test_single_views_are_those_of_the_recipes(found):
    mine = {item.id: item for item in found}
    every = tuple(FAMILIES)
    for sample in tabletop_samples(range(6, 9), 1, (72, 72), families=every, turns_per_family=1):
        other = mine[sample.id]
        assert (sample.turns, sample.meta) == (other.turns, other.meta)
        assert np.array_equal(sample.frames[0].image, other.frames[0].image)


def test_counts_and_families_can_be_chosen_and_wrong_ones_are_refused():
    only = {"views": 0, "videos": 0, "interaction": 0, "size": (48, 48)}
    (sample,) = Tabletop(scenes=1, families=("view_overlap", "after_moving"), **only).read("0-0")
    assert len(sample.frames) == 3 and {t.family for t in sample.turns} <= {"view_overlap", "after_moving"}
    (nothing,) = Tabletop(scenes=1, families=("next_step",), **only).read("0-0")
    assert (nothing.stage, nothing.reason, nothing.id) == ("questions", "no_question", "tabletop-0-views-0")
    with pytest.raises(ValueError, match="nonsense"):
        Tabletop(families=("nonsense",))
    with pytest.raises(ValueError, match="scenes 0"):
        Tabletop(scenes=0)
