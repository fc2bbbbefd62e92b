"""The stages between reading a sample and storing it, in their order; each looks at one sample alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial

from gemvlm.curation import filters, licences
from gemvlm.curation.overlap import Blocklist, OverlapRules
from gemvlm.curation.plan import DepthPolicy, Plan
from gemvlm.curation.source import Rejection
from gemvlm.data import quarantine
from gemvlm.sample import Sample

Judged = tuple[Sample | None, list[Rejection]]
"""What goes on, with a rejection for each question that it lost; or None with the reason against the sample."""

Stage = Callable[[Sample], Judged]


def make_stages(plan: Plan) -> tuple[Stage, ...]:
    """The stages that the plan asks for. ValueError if a file of benchmark fingerprints can't be read."""
    stages: list[Stage] = [partial(_judged, _unusable), partial(_with_depth, plan.depth)]
    if plan.filters is not None:
        stages.append(partial(_judged, partial(filters.check, rules=plan.filters)))
    if plan.licences is not None:
        stages.append(partial(_judged, partial(licences.check, rules=plan.licences)))
    if plan.benchmarks:
        stages.append(partial(_judged, _blocklist(plan.benchmarks, plan.overlap).check))
    return tuple(stages)


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


def _with_depth(policy: DepthPolicy, sample: Sample) -> Judged:
    """Frames without depth are given a teacher's, if there is one."""
    bare = [i for i, frame in enumerate(sample.frames) if frame.depth is None]
    if bare and policy.required:
        detail = f"{len(bare)} of {len(sample.frames)} frames have no depth; name a teacher in the plan"
        return None, [filters.reject(sample, "no_depth", detail, f"frames[{bare[0]}].depth", "depth")]
    return sample, []


@lru_cache(maxsize=1)
def _blocklist(paths: tuple[str, ...], rules: OverlapRules) -> Blocklist:
    """Kept for the life of a worker: benchmarks may have hundreds of thousands of fingerprints."""
    return Blocklist.from_files(paths, rules)
