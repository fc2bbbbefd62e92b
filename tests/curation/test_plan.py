"""Plans: quotas, places of data, what of them is written into a set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemvlm.curation.plan import DepthPolicy, Plan, SourceUse
from gemvlm.recipes import get_plan


def plan(*weights: float, limit: int | None = None) -> Plan:
    uses = (SourceUse(f"s{i}", "toy_source:Toy", weight=weight) for i, weight in enumerate(weights))
    return Plan("p", "", tuple(uses), limit=limit)


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=8), st.integers(1, 10_000))
def test_shares_add_up_to_the_limit_and_are_off_by_less_than_one(weights: list[float], limit: int) -> None:
    quotas = list(plan(*weights, limit=limit).quotas().values())
    assert sum(q for q in quotas if q is not None) == limit
    for quota, weight in zip(quotas, weights, strict=True):
        assert quota is not None and abs(quota - limit * weight / sum(weights)) < 1


def test_a_quota_caps_a_share_and_no_limit_is_no_end() -> None:
    capped = replace(plan(1.0, 1.0, limit=100), sources=(SourceUse("a", "x", quota=10), SourceUse("b", "x")))
    assert capped.quotas() == {"a": 10, "b": 50}
    assert replace(capped, limit=None).quotas() == {"a": 10, "b": None}


def located(**fields: str | None) -> Plan:
    return Plan("p", "", (SourceUse("a", "sat", located_by="path"), SourceUse("b", "tabletop")))


def test_missing_data_is_named_and_takes_no_share(tmp_path: Path) -> None:
    bare = replace(located(), limit=10)
    assert [use.name for use in bare.missing()] == ["a"] and bare.quotas() == {"b": 10}
    with pytest.raises(ValueError, match="--root a=FOLDER"):
        bare.sources[0].open()
    there = bare.located({"a": str(tmp_path)})
    assert not there.missing() and there.quotas() == {"a": 5, "b": 5}


def test_places_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reads no such data set; it reads a"):
        located().located({"b": str(tmp_path)})
    with pytest.raises(ValueError, match="no such folder"):
        located().located({"a": str(tmp_path / "no" / "where" / "at" / "all")})
    assert located().located({"a": "owner/name"}).sources[0].root == "owner/name"


def test_folders_of_this_machine_key_the_work_but_are_not_told(tmp_path: Path) -> None:
    depth = DepthPolicy(teacher=f"gem:{tmp_path}/weights")
    bare = replace(located(), depth=depth, benchmarks=(str(tmp_path / "bench.json"),))
    there = bare.located({"a": str(tmp_path)})
    assert str(tmp_path) not in json.dumps(there.to_json()) and there.to_json() == bare.to_json()
    assert there.to_json()["depth"]["teacher"] == "gem:weights"
    assert there.digest() != bare.digest()


def test_bad_plans_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="names of their own"):
        replace(located(), sources=(SourceUse("a", "x"), SourceUse("a", "y")))
    with pytest.raises(ValueError, match="limit of 0"):
        replace(located(), limit=0)
    with pytest.raises(ValueError, match=r"unknown source 'nope'; there are .*tabletop"):
        SourceUse("a", "nope").open()
    with pytest.raises(ValueError, match=r"'tabletop'.*colour.*correct its options"):
        SourceUse("tabletop", "tabletop", {"colour": 1}).open()


@pytest.mark.parametrize("name", ["gem_4m", "tabletop_100k"])
def test_shipped_plans_name_sources_that_there_are(name: str, tmp_path: Path) -> None:
    from gemvlm.curation.sources import SOURCES

    shipped = get_plan(name)
    assert {use.kind for use in shipped.sources} <= set(SOURCES)
    groups = {group for use in shipped.sources for group in use.groups}
    assert groups == {"grounding", "reasoning", "planning"}
    for use in shipped.sources:
        source_class = SOURCES[use.kind]
        fields = source_class.__dataclass_fields__
        assert set(use.options) <= set(fields) and (use.located_by is None or use.located_by in fields), use.name
    assert json.loads(json.dumps(shipped.to_json())) == shipped.to_json()


def test_gem_4m_marks_what_the_paper_does_not_say() -> None:
    shipped = get_plan("gem_4m")
    assert {use.name for use in shipped.sources if use.basis == "paper"} == {"gem-250k"}
    assert all("the paper gives no count" in use.note for use in shipped.sources if use.basis != "ours")
