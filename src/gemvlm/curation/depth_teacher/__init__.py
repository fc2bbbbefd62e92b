"""Depth for pictures that have none: teachers behind one interface, what their maps are worth, and who may use them."""

from __future__ import annotations

from typing import Any

from gemvlm.curation.depth_teacher.alignment import AlignmentRules, align, fill_holes
from gemvlm.curation.depth_teacher.label import LabelRules, label_depth, label_part
from gemvlm.curation.depth_teacher.quality import (
    AcceptanceRules,
    accept,
    agreement,
    flip_consistency,
    relief,
)
from gemvlm.curation.depth_teacher.teacher import DepthTeacher, FunctionTeacher
from gemvlm.curation.refusal import Refusal

__all__ = [
    "AcceptanceRules",
    "AlignmentRules",
    "DepthTeacher",
    "FunctionTeacher",
    "LabelRules",
    "Refusal",
    "accept",
    "agreement",
    "align",
    "fill_holes",
    "flip_consistency",
    "label_depth",
    "label_part",
    "load_teacher",
    "relief",
]

TEACHERS = ("depth-anything-v2", "depth-pro", "depth-anything-3", "gem")


def load_teacher(spec: str, **options: Any) -> DepthTeacher:
    """The teacher that "kind:folder" names: "depth-anything-v2:/models/Depth-Anything-V2-Small-hf", "gem:nano", ...

    `options` go to its class (`name`, `licence`, `batch_size`, ...). ValueError for an unknown kind or folder.
    """
    kind, _, where = spec.partition(":")
    if kind not in TEACHERS or not where:
        raise ValueError(f"depth teacher {spec!r}: give KIND:FOLDER with a kind of {', '.join(TEACHERS)}")
    if kind == "gem":
        from gemvlm.curation.depth_teacher.gem_teacher import GemTeacher

        return GemTeacher(where, **options)
    if kind == "depth-anything-3":
        from gemvlm.curation.depth_teacher.depth_anything3 import DepthAnything3

        return DepthAnything3(where, **options)
    from gemvlm.curation.depth_teacher import transformers_models as models

    published = models.DepthAnythingV2 if kind == "depth-anything-v2" else models.DepthPro
    return published(where, **options)
