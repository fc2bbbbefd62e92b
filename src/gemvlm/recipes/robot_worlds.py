"""robot_worlds: samples of two benchmarks' scenes, Meta-World and LIBERO, with the truth of their simulators.

    gemvlm curate robot_worlds --out sets/robots --root libero=ASSETS      # without --root, Meta-World alone

LIBERO needs its packages (`make worlds-libero`) and a folder of its assets, whose own terms hold. Every number is ours.
Policies are tested in these worlds. Meta-World's seeds from 10 on are left to them, and so are LIBERO's official
initial states: the starts here are drawn by its own sampler, so that a policy on a GEM of this set may be played on all
50.
"""

from __future__ import annotations

from gemvlm.curation.answer_balance import BalanceRules
from gemvlm.curation.licences import OPEN_LICENCES, LicenceRules
from gemvlm.curation.plan import DepthPolicy, Plan, SourceUse

ROBOT_WORLDS = Plan(
    name="robot_worlds",
    about="Questions with true answers about the scenes and tasks of Meta-World and LIBERO.",
    sources=(
        SourceUse(
            "metaworld",
            "metaworld",
            options={"episodes": 10},
            groups=("grounding", "reasoning", "planning"),
            note="50 tasks; seeds 0 to 9",
        ),
        SourceUse(
            "libero",
            "libero",
            options={"states": 25},
            groups=("grounding", "reasoning", "planning"),
            note="40 tasks; starts that LIBERO's own sampler draws from seeds 0 to 24, none of the official ones",
            located_by="assets",
        ),
    ),
    depth=DepthPolicy(required=True),
    licences=LicenceRules(allowed=(*OPEN_LICENCES, "LicenseRef-LIBERO-assets")),
    balance=BalanceRules(),
)
