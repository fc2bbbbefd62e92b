"""Why a map, a caption or a wording was not used. The sample that it was for goes on without it."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """A short code to count by, and a sentence."""

    reason: str
    detail: str
