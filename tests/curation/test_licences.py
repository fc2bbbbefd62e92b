"""Only what the list allows may stay, data and teacher alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemvlm.curation.licences import LicenceRules, check, is_allowed
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.sample import Frame, Provenance, Sample


def licensed(licence, teacher=None, provenance="teacher"):
    depth = DepthMap.from_values(np.ones((4, 4), np.float32))
    depth = replace(depth, origin=None if teacher is None else DepthOrigin(provenance, licence=teacher))
    frame = Frame(np.zeros((4, 4, 3), np.uint8), depth)
    return Sample("s", (frame,), (), "", "", provenance=Provenance(licence=licence, record="x:1"))


@pytest.mark.parametrize("licence", ["MIT", "apache-2.0", "cc-by-4.0", "MIT OR CC-BY-NC-4.0", "MIT AND Apache-2.0"])
def test_allowed(licence):
    assert check(licensed(licence)) == []


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "GPL-3.0-only", "MIT AND CC-BY-NC-4.0", "MITX", "(MIT)"])
def test_refused(licence):
    (rejection,) = check(licensed(licence))
    assert (rejection.stage, rejection.reason, rejection.file) == ("licence", "refused_licence", "x:1")


def test_unknown_is_refused_unless_asked_for():
    assert [r.reason for r in check(licensed("unknown"))] == ["unknown_licence"]
    assert [r.reason for r in check(licensed(""))] == ["unknown_licence"]
    assert check(licensed("unknown"), LicenceRules(allow_unknown=True)) == []
    assert not is_allowed("CC-BY-NC-4.0", LicenceRules(allow_unknown=True))


def test_the_teacher_of_the_depth_counts():
    (rejection,) = check(licensed("MIT", teacher="CC-BY-NC-4.0"))
    assert rejection.field == "frames[0].depth.origin.licence"
    assert check(licensed("MIT", teacher="Apache-2.0")) == []
    assert check(licensed("MIT", teacher="unknown", provenance="sensor")) == []
