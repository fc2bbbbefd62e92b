"""gem_4m: the paper's three groups, grounding, reasoning and planning, from the data sets that are public.

    gemvlm curate gem_4m --out sets/gem --root refspatial=data/RefSpatial --root sat=data/SAT

The paper counts 4 million samples of three groups, with true depth where a source has it and Depth Anything 3's
elsewhere. It publishes neither the list of its sources nor a count for any of them: `basis` says of each who names it,
and `count` is what its own publisher counts, never the paper's share. So this is a set of the paper's kind, not the
paper's set. Weights are ours: equal, but for sources of fewer than 50,000 samples, which would run dry.
"""

from __future__ import annotations

from gemvlm.curation.licences import OPEN_LICENCES, LicenceRules
from gemvlm.curation.plan import DepthPolicy, Plan, SourceUse
from gemvlm.sample import Task

NO_SHARE = "the paper gives no count"


def _read(name: str, *groups: Task, count: int | None, note: str, weight: float = 1.0) -> SourceUse:
    """A published data set that the user has."""
    return SourceUse(
        name=name,
        kind=name,
        groups=groups,
        weight=weight,
        basis="card",
        count=count,
        note=f"{note}; {NO_SHARE}",
        located_by="path",
    )


GEM_4M = Plan(
    name="gem_4m",
    about="Grounding, reasoning and planning from public data and a simulator; each sample carries its source's terms.",
    sources=(
        SourceUse(
            name="gem-250k",
            kind="gem-250k",
            groups=("grounding", "reasoning", "planning"),
            basis="paper",
            count=250_000,
            note="the authors' published part of their set; its rows name no sources, and the paper gives no counts",
            located_by="path",
        ),
        _read("refspatial", "grounding", "reasoning", count=2_500_000, note="2-D, 3-D and simulated references"),
        _read("robopoint", "grounding", count=1_432_000, note="objects and free space, with LVIS and LLaVA rows"),
        _read("vsi-590k", "reasoning", count=590_000, note="space in videos and images"),
        _read("spar", "reasoning", count=7_000_000, note="33 tasks on scanned rooms; markers are drawn when read"),
        _read("scannet", "reasoning", count=None, note="RGB-D scans, asked about by us; ScanNet's own terms hold"),
        _read("sat", "reasoning", count=175_000, note="static and moving scenes of a simulator"),
        _read("mindcube", "reasoning", count=10_000, weight=0.2, note="training part; its test is a benchmark"),
        _read("robovqa", "planning", count=829_502, note="robots' long tasks; its validation part is a benchmark"),
        _read("robo2vlm", "planning", "reasoning", count=678_034, note="questions from robots' trajectories"),
        _read("sharerobot", "planning", "grounding", count=1_027_990, note="plans, affordances and trajectories"),
        SourceUse(
            name="tabletop",
            kind="tabletop",
            options={"scenes": 100_000, "first_scene": 20_000, "size": (448, 448)},
            groups=("grounding", "reasoning", "planning"),
            quota=500_000,
            basis="ours",
            note="exact depth, contacts and motion, which no published set has; not in the paper",
        ),
    ),
    depth=DepthPolicy(),
    licences=LicenceRules(allowed=OPEN_LICENCES),
    limit=4_000_000,
)
