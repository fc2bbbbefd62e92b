"""Tabletop samples: the same bytes for any process count, and what each sample holds."""

from __future__ import annotations

import pickle

import pytest

pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")

from gemvlm.curation.questions import CORE_FAMILIES
from gemvlm.curation.sources.tabletop import tabletop_samples


def test_process_count_changes_no_byte():
    alone = list(tabletop_samples(range(3), views_per_scene=2, size=(48, 64)))
    shared = list(tabletop_samples(range(3), views_per_scene=2, size=(48, 64), processes=2))
    assert [s.id for s in alone] == [f"tabletop-{seed}-{view}" for seed in range(3) for view in range(2)]
    for one, other in zip(alone, shared, strict=True):
        assert one.turns == other.turns and one.id == other.id
        assert one.frames[0].image.tobytes() == other.frames[0].image.tobytes()
        assert one.frames[0].depth.values.tobytes() == other.frames[0].depth.values.tobytes()


def test_samples_hold_image_depth_camera_and_turns_of_the_families_asked_for():
    samples = list(tabletop_samples(range(6), views_per_scene=1, families=["describe", "point"], turns_per_family=3))
    assert {turn.family for s in samples for turn in s.turns} == {"describe", "point"}
    for s in samples:
        assert s.turns[0].family == "describe" and len(s.turns) <= 4
        assert s.frames[0].depth.is_metric and s.frames[0].view is not None and s.scene == f"tabletop-{s.meta['seed']}"
        assert pickle.loads(pickle.dumps(s)).turns == s.turns


def test_every_family_speaks_on_tabletops():
    families = {turn.family for s in tabletop_samples(range(30), views_per_scene=1) for turn in s.turns}
    assert families == set(CORE_FAMILIES)


def test_wrong_counts_and_families_are_refused():
    with pytest.raises(ValueError, match="processes 0"):
        next(tabletop_samples(range(1), processes=0))
    with pytest.raises(ValueError, match="nonsense"):
        next(tabletop_samples(range(1), families=["nonsense"]))
