"""tabletop_100k: a hundred thousand samples of the simulated tabletop, from nothing but this package.

    gemvlm curate tabletop_100k --out sets/tabletop

Single pictures, several views of one moment, walks past a still table, and videos of acts and tasks, so that all three
groups of the paper have true answers and exact depth. Every number is ours.
"""

from __future__ import annotations

from gemvlm.curation.answer_balance import BalanceRules
from gemvlm.curation.licences import LicenceRules
from gemvlm.curation.plan import DepthPolicy, Plan, SourceUse

TABLETOP_100K = Plan(
    name="tabletop_100k",
    about="Questions with true answers about simulated tabletops, with exact depth, cameras and motion.",
    sources=(
        SourceUse(
            "tabletop",
            "tabletop",
            # A scene gives 6.6 samples on average: enough scenes for the limit, and none of those kept for tests.
            options={"scenes": 16_000, "first_scene": 0, "size": (96, 96)},
            groups=("grounding", "reasoning", "planning"),
        ),
    ),
    depth=DepthPolicy(required=True),
    licences=LicenceRules(),
    balance=BalanceRules(),
    limit=100_000,
)
