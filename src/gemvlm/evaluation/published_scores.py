"""Scores that others report, to stand beside ours: the paper's, and those of the models that it builds on.

The paper's table cells are known from public reading notes about arXiv 2605.28548 (N1 to N5 of our notes), not from its
text: "second-hand", and "one note" where a single note has the number. "report" was read in a report or README of the
model's authors. In per cent, as they were printed. Harness, prompts and frame count of the paper are not known, and the
same weights move by up to five points between harnesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Confidence = Literal["report", "second-hand", "one note"]


@dataclass(frozen=True)
class PublishedScore:
    """`score` (per cent) of `model` on a benchmark's summary entry `part`."""

    benchmark: str
    part: str
    model: str
    score: float
    confidence: Confidence
    source: str


PAPER = "GEM paper, arXiv 2605.28548"

PUBLISHED: tuple[PublishedScore, ...] = (
    PublishedScore("vsi_bench", "overall", "GEM-2B", 62.8, "second-hand", f"{PAPER}, table 1 (N1, N2, N4)"),
    PublishedScore("vsi_bench", "overall", "Qwen3-VL-2B-SFT", 60.0, "second-hand", f"{PAPER}, table 1 (N1, N2, N4)"),
    PublishedScore("vsi_bench", "overall", "GEM-8B", 70.6, "second-hand", f"{PAPER}, table 1 (N1, N2, N4)"),
    PublishedScore("vsi_bench", "overall", "Qwen3-VL-8B-SFT", 68.6, "second-hand", f"{PAPER}, table 1 (N1, N2, N4)"),
    PublishedScore("vsi_bench", "overall", "Qwen3-VL-8B", 57.9, "second-hand", f"{PAPER}, table 1; also EASI's board"),
    PublishedScore("vsi_bench", "overall", "Qwen3-VL-2B", 53.9, "report", "QwenLM/Qwen3-VL issue 2028; lmms-eval 51.0"),
    PublishedScore("vsi_bench", "object_abs_distance", "GEM, ablation", 47.8, "one note", f"{PAPER}, table 4 (N4)"),
    PublishedScore("robospatial_home", "overall", "GEM, ablation", 63.0, "one note", f"{PAPER}, table 4 (N4)"),
    PublishedScore("robospatial_home", "overall", "Qwen3-VL-2B", 49.1, "report", "RoboSpatial-Eval README, macro mean"),
    PublishedScore("robospatial_home", "overall", "Qwen3-VL-8B", 66.9, "report", "Qwen3-VL report; EASI finds 62.0"),
    PublishedScore("blink", "overall", "Qwen3-VL-2B", 53.8, "report", "Qwen3-VL report; EASI finds 53.2 and 52.5"),
    PublishedScore("blink", "overall", "Qwen3-VL-8B", 69.1, "report", "Qwen3-VL report; EASI finds 66.7 and 64.9"),
    PublishedScore("embspatial", "overall", "Qwen3-VL-4B", 79.6, "report", "Qwen3-VL report; EASI finds 78.7 and 76.8"),
    PublishedScore("embspatial", "overall", "Qwen3-VL-8B", 78.5, "report", "Qwen3-VL report; EASI finds 77.7 and 77.4"),
    PublishedScore("erqa", "overall", "Qwen3-VL-8B", 45.8, "report", "Qwen3-VL report; EASI finds 43.0"),
    PublishedScore("refspatial_bench", "overall", "Qwen3-VL-8B", 54.2, "report", "Qwen3-VL report; EASI finds 56.5"),
    PublishedScore("mmsi", "overall", "Qwen3-VL-8B", 31.1, "report", "EASI's board"),
    PublishedScore("mindcube", "overall", "Qwen3-VL-8B", 29.42, "report", "EASI's board"),
)


def published_for(benchmark: str) -> tuple[PublishedScore, ...]:
    """What others report on a benchmark."""
    return tuple(score for score in PUBLISHED if score.benchmark == benchmark)
