"""Which licences a data set may hold: an allow-list of SPDX ids, for the data and for the teacher of its depth."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gemvlm.curation.filters import reject
from gemvlm.curation.source import Rejection
from gemvlm.sample import Sample

OPEN_LICENCES = (
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-3.0", "CC-BY-2.0", "CC-BY-SA-4.0",
    "CC0-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "ISC", "MIT", "ODC-By-1.0", "ODbL-1.0", "PDDL-1.0",
    "Unlicense",
)  # fmt: skip
"""Ids of the SPDX list 3.x that let data be used for any purpose, commercial ones too."""

UNKNOWN = ("", "unknown", "other", "noassertion", "none", "unlicensed")


@dataclass(frozen=True)
class LicenceRules:
    """Ids that may stay (any spelling of case). What is unknown is refused unless `allow_unknown` says otherwise."""

    allowed: tuple[str, ...] = OPEN_LICENCES
    allow_unknown: bool = False


def check(sample: Sample, rules: LicenceRules | None = None) -> list[Rejection]:
    """A rejection if the sample's licence is not allowed, else one for the first frame whose depth teacher's is not."""
    rules = rules or LicenceRules()
    licences = [("provenance.licence", sample.provenance.licence)]
    for i, frame in enumerate(sample.frames):
        origin = None if frame.depth is None else frame.depth.origin
        if origin is not None and origin.provenance == "teacher":
            licences.append((f"frames[{i}].depth.origin.licence", origin.licence))
    for field, licence in licences:
        if not is_allowed(licence, rules):
            unknown = licence.strip().lower() in UNKNOWN
            detail = f"{field} is {licence!r}, " + (
                "which is unknown; find it out, or allow unknown licences" if unknown else "which is not allowed"
            )
            reason = "unknown_licence" if unknown else "refused_licence"
            return [reject(sample, reason, detail, field, "licence")]
    return []


def is_allowed(expression: str, rules: LicenceRules) -> bool:
    """True if an SPDX expression can be met: of "A OR B" one must be allowed, of "A AND B" both; AND binds tighter.

    Parentheses and WITH are not read: such an expression counts as one id that no list holds.
    """
    if expression.strip().lower() in UNKNOWN:
        return rules.allow_unknown
    allowed = {licence.lower() for licence in rules.allowed}
    alternatives = re.split(r"\s+OR\s+", expression.strip(), flags=re.IGNORECASE)
    return any(
        all(part.strip().lower() in allowed for part in re.split(r"\s+AND\s+", alternative, flags=re.IGNORECASE))
        for alternative in alternatives
    )
