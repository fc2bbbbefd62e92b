"""The stages between reading a sample and storing it, in their order; each looks at one sample alone."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

from gemvlm.curation import filters, licences
from gemvlm.curation.annotator import DOWN, Annotator, Endpoint, rephrase
from gemvlm.curation.depth_teacher import DepthTeacher, LabelRules, label_part, load_teacher
from gemvlm.curation.overlap import Blocklist, OverlapRules
from gemvlm.curation.plan import DepthPolicy, Plan
from gemvlm.curation.source import Rejection
from gemvlm.data import quarantine
from gemvlm.sample import Sample

REPHRASED_AT_ONCE = 16

Judged = tuple[Sample | None, list[Rejection]]
"""What goes on, with a rejection for each question that it lost; or None with the reason against the sample."""

Stage = Callable[[Sample], Judged]


def before_depth() -> tuple[Stage, ...]:
    """What is not worth a teacher's time goes first."""
    return (partial(_judged, _unusable),)


def after_depth(plan: Plan) -> tuple[Stage, ...]:
    """The stages that the plan asks for. ValueError if a file of benchmark fingerprints can't be read."""
    stages: list[Stage] = []
    if plan.depth.required:
        stages.append(partial(_judged, _without_depth))
    if plan.filters is not None:
        stages.append(partial(_judged, partial(filters.check, rules=plan.filters)))
    if plan.licences is not None:
        stages.append(partial(_judged, partial(licences.check, rules=plan.licences)))
    if plan.benchmarks:
        stamps = tuple(Path(path).stat().st_mtime_ns for path in plan.benchmarks)
        stages.append(partial(_judged, _blocklist(plan.benchmarks, stamps, plan.overlap).check))
    return tuple(stages)


def with_depth(policy: DepthPolicy, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Sample | Rejection]]:
    """Each sample with what became of it: depth in the frames that had none, as it was, or a rejection."""
    if policy.teacher is None:
        yield from ((sample, sample) for sample in samples)
        return
    waiting: deque[Sample] = deque()

    def remembered() -> Iterator[Sample]:
        for sample in samples:
            waiting.append(sample)
            yield sample

    teacher = teacher_of(policy.teacher, json.dumps(dict(policy.options), sort_keys=True))
    for item in label_part(remembered(), teacher, LabelRules.from_json(policy.labels)):
        yield waiting.popleft(), item


def with_words(
    endpoint: Endpoint | None, cache: Path, samples: Iterable[Sample]
) -> Iterator[tuple[Sample, tuple[Rejection, ...]]]:
    """Each sample with its questions in an annotator's words, and why some keep their own.

    Replies are kept in `cache`: what was asked before an interruption is not asked again. ConnectionError if the
    endpoint is down or refuses the key: a set must not depend on that.
    """
    if endpoint is None:
        yield from ((sample, ()) for sample in samples)
        return
    annotator, samples = Annotator(endpoint, cache), iter(samples)
    while chunk := list(islice(samples, REPHRASED_AT_ONCE)):
        for done in rephrase(chunk, annotator):
            for refused in done.refused:
                if refused.reason.removeprefix("rephrase_") in DOWN:
                    raise ConnectionError(
                        f"annotator {endpoint.base_url}: {refused.detail}; see that it runs and that "
                        f"{endpoint.key_variable} holds its key: the same command goes on where it stopped"
                    )
            yield done.sample, done.refused


@lru_cache(maxsize=1)
def teacher_of(spec: str, options: str) -> DepthTeacher:
    """The teacher, kept for the life of a worker: its weights take longer to load than a part to label."""
    return load_teacher(spec, **json.loads(options))


def _judged(judge: Callable[[Sample], Iterable[Rejection]], sample: Sample) -> Judged:
    found = list(judge(sample))
    left = filters.remaining(sample, found)
    return (None, [left]) if isinstance(left, Rejection) else (left, found)


def _unusable(sample: Sample) -> list[Rejection]:
    """What would break or mislead training."""
    defect = quarantine.check(sample)
    if defect is None:
        return []
    return [Rejection("import", "unusable", str(defect), sample.id, sample.provenance.record, defect.field)]


def _without_depth(sample: Sample) -> list[Rejection]:
    bare = [i for i, frame in enumerate(sample.frames) if frame.depth is None]
    if not bare:
        return []
    detail = f"{len(bare)} of {len(sample.frames)} frames have no depth; name a teacher in the plan"
    return [filters.reject(sample, "no_depth", detail, f"frames[{bare[0]}].depth", "depth")]


@lru_cache(maxsize=1)
def _blocklist(paths: tuple[str, ...], stamps: tuple[int, ...], rules: OverlapRules) -> Blocklist:
    """Kept until a file changes: benchmarks may have hundreds of thousands of fingerprints."""
    return Blocklist.from_files(paths, rules)
