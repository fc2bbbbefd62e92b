"""Depth for samples: the truth where there is one, else a teacher's map if it passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gemvlm.curation.depth_teacher.alignment import AlignmentRules, align, fill_holes
from gemvlm.curation.depth_teacher.quality import (
    AcceptanceRules,
    accept,
    agreement,
    flip_consistency,
    with_quality,
)
from gemvlm.curation.depth_teacher.teacher import DepthTeacher
from gemvlm.curation.refusal import Refusal
from gemvlm.curation.source import Rejection
from gemvlm.depth_map import DepthMap
from gemvlm.sample import Frame, Sample

TEACHER_FAILURES = (ValueError, ArithmeticError, RuntimeError)
"""What a network raises at a picture that it can't take."""


@dataclass(frozen=True)
class LabelRules:
    """`fill_holes` lets a sensor's holes be filled by the teacher, aligned to it; depth of a simulator has none.

    With `required`, a sample is rejected if no frame has depth in the end; otherwise it stays without.
    """

    acceptance: AcceptanceRules = field(default_factory=AcceptanceRules)
    alignment: AlignmentRules = field(default_factory=AlignmentRules)
    fill_holes: bool = False
    required: bool = True

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> LabelRules:
        """From plain data, {"acceptance": {"min_flip": 0.0}, "required": false}. ValueError names an unknown field."""
        parts = {"acceptance": AcceptanceRules, "alignment": AlignmentRules}
        try:
            return cls(**{k: parts[k](**v) if k in parts and isinstance(v, Mapping) else v for k, v in fields.items()})
        except TypeError as error:
            raise ValueError(f"depth labels {dict(fields)}: {error}; see `LabelRules`") from error


def label_depth(
    sample: Sample, teacher: DepthTeacher, rules: LabelRules | None = None, second: DepthTeacher | None = None
) -> Sample | Rejection:
    """The sample with depth in every frame that a map was accepted for; see `label_part`."""
    return next(label_part([sample], teacher, rules, second))


def label_part(
    items: Iterable[Sample | Rejection],
    teacher: DepthTeacher,
    rules: LabelRules | None = None,
    second: DepthTeacher | None = None,
    frames_at_once: int = 32,
) -> Iterator[Sample | Rejection]:
    """Samples with depth, in their order; rejections pass through. Frames of several samples are predicted together.

    Depth that is there stays as it is (but for its holes, if `fill_holes`). A teacher's map is stored as the kind that
    it is, with its quality in the origin; the view's focal length is given to the teacher. `second` is asked for its
    agreement. Frames whose map is refused are named in `meta["depth_refused"]`; a sample is rejected if no frame has
    depth in the end.
    """
    rules = rules or LabelRules()
    waiting: list[Sample | Rejection] = []
    frames = 0
    for item in items:
        waiting.append(item)
        frames += len(item.frames) if isinstance(item, Sample) else 0
        if frames >= frames_at_once:
            yield from _labelled(waiting, teacher, rules, second)
            waiting, frames = [], 0
    yield from _labelled(waiting, teacher, rules, second)


def _labelled(
    items: Sequence[Sample | Rejection], teacher: DepthTeacher, rules: LabelRules, second: DepthTeacher | None
) -> Iterator[Sample | Rejection]:
    wanted = [
        (i, j)
        for i, item in enumerate(items)
        if isinstance(item, Sample)
        for j, frame in enumerate(item.frames)
        if frame.depth is None or (rules.fill_holes and _has_holes(frame.depth))
    ]
    frames = [_frame(items[i], j) for i, j in wanted]
    found = dict(zip(wanted, _maps(frames, teacher, rules, second), strict=True))
    for i, item in enumerate(items):
        own = {j: found[i, j] for a, j in wanted if a == i}
        yield _with_maps(item, own, rules) if isinstance(item, Sample) else item


def _maps(
    frames: Sequence[Frame], teacher: DepthTeacher, rules: LabelRules, second: DepthTeacher | None
) -> list[DepthMap | Refusal]:
    """An accepted map or a refusal for each frame. If a batch fails, its frames are tried one by one."""
    if not frames:
        return []
    try:
        return _judged(frames, teacher, rules, second)
    except TEACHER_FAILURES as error:
        if len(frames) == 1:
            return [Refusal("teacher_failed", f"{teacher.name}: {type(error).__name__}: {error}")]
    return [found for frame in frames for found in _maps([frame], teacher, rules, second)]


def _judged(
    frames: Sequence[Frame], teacher: DepthTeacher, rules: LabelRules, second: DepthTeacher | None
) -> list[DepthMap | Refusal]:
    images = [frame.image for frame in frames]
    focal = [None if frame.view is None else frame.view.camera.fx for frame in frames]
    maps = teacher.predict(images, focal)
    if rules.acceptance.min_flip > 0:
        shares = flip_consistency(teacher, images, maps, focal)
        maps = [with_quality(one, flip_consistency=share) for one, share in zip(maps, shares, strict=True)]
    if second is not None:
        others = second.predict(images, focal)
        maps = [with_quality(one, agreement=agreement(one, other)) for one, other in zip(maps, others, strict=True)]
    return [accept(one, rules.acceptance) or one for one in maps]


def _with_maps(sample: Sample, maps: dict[int, DepthMap | Refusal], rules: LabelRules) -> Sample | Rejection:
    frames, refused = list(sample.frames), dict[int, Refusal]()
    for j, found in maps.items():
        truth = frames[j].depth
        if isinstance(found, Refusal):
            if truth is None:
                refused[j] = found
        elif truth is None:
            frames[j] = replace(frames[j], depth=found)
        else:
            aligned = align(found, truth, rules.alignment)
            if isinstance(aligned, DepthMap):
                frames[j] = replace(frames[j], depth=fill_holes(truth, aligned, rules.alignment)[0])
    if refused and rules.required and all(frame.depth is None for frame in frames):
        j, (reason, detail) = min(refused.items())
        detail = f"sample {sample.id!r}: no frame has depth; frame {j}: {detail}"
        return Rejection("depth", reason, detail, sample.id, sample.provenance.record, f"frames[{j}].depth")
    if refused:
        meta = {**sample.meta, "depth_refused": {str(j): one.reason for j, one in sorted(refused.items())}}
        return replace(sample, frames=tuple(frames), meta=meta)
    return replace(sample, frames=tuple(frames)) if maps else sample


def _has_holes(depth: DepthMap) -> bool:
    """Of a sensor's z-depth: a simulator's is exact, and what a teacher leaves open no other need close."""
    by = "unknown" if depth.origin is None else depth.origin.provenance
    return depth.kind == "metric_z" and by in ("sensor", "stereo") and not depth.valid.all()


def _frame(item: Sample | Rejection, index: int) -> Frame:
    assert isinstance(item, Sample)
    return item.frames[index]
