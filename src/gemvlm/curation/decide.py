"""Decisions that need the whole set: repeated ids, near-duplicates, shares of the limit, balance.

They look at prints only, in the order of the parts, so they come out the same whoever made the parts and in whatever
order those were finished.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gemvlm.curation.answer_balance import TurnPrint, unbalancing
from gemvlm.curation.duplicates import MediaPrint, find_duplicates
from gemvlm.curation.filters import TURN_FIELD
from gemvlm.curation.part import SamplePrint, Task, read_prints
from gemvlm.curation.plan import Plan
from gemvlm.curation.source import Rejection

PartsOf = Callable[[str], Iterator[Task]]
"""The finished parts of the source of that name, in order; they are made as they are asked for."""


@dataclass(frozen=True)
class Loss:
    """A stored sample that is left out with all its `turns`, or (not `whole`) one question of a sample that stays."""

    task: Task
    index: int
    rejection: Rejection
    turns: int
    whole: bool = True


@dataclass
class Decisions:
    """`kept` names the samples of the set by part and index, in order; `turns_out` the questions that they lose.

    `tasks` are the parts that were looked at, in order; `losses` what these decisions took out.
    """

    tasks: list[Task] = field(default_factory=list)
    kept: dict[Task, list[int]] = field(default_factory=dict)
    turns_out: dict[tuple[Task, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    losses: list[Loss] = field(default_factory=list)


@dataclass
class _Candidate:
    task: Task
    index: int
    print: SamplePrint


def decide(plan: Plan, parts_of: PartsOf, folder_of: Callable[[Task], Path]) -> Decisions:
    """Goes through the parts of each source until its quota is full, then evens out the answers of what was kept."""
    decisions = Decisions()
    kept: list[_Candidate] = []
    twins: dict[str, Rejection] = {}

    def prints() -> Iterator[MediaPrint]:
        """Prints of what may be kept; when the next is asked for, `twins` knows about the last one."""
        ids: set[str] = set()
        for use in plan.present():
            quota, taken = plan.quotas()[use.name], 0
            for task in parts_of(use.name):
                decisions.tasks.append(task)
                for index, item in enumerate(read_prints(folder_of(task))):
                    name, record = item.media.id, item.media.record
                    if quota is not None and taken >= quota:
                        loss = Rejection("balance", "over_quota", f"{use.name!r} has its {quota} samples", name, record)
                    elif name in ids:
                        loss = Rejection("duplicate", "repeated_id", f"another sample is called {name!r}", name, record)
                    else:
                        ids.add(name)
                        if plan.duplicates is not None:
                            yield item.media
                        if name not in twins:
                            kept.append(_Candidate(task, index, item))
                            taken += 1
                            continue
                        loss = twins[name]
                    decisions.losses.append(Loss(task, index, loss, item.turns))
                if quota is not None and taken >= quota:
                    break

    for rejection in find_duplicates(prints(), plan.duplicates):
        twins[rejection.id] = rejection
    _even_out(plan, kept, decisions)
    return decisions


def _even_out(plan: Plan, kept: list[_Candidate], decisions: Decisions) -> None:
    by_id = {candidate.print.media.id: candidate for candidate in kept}
    lost: dict[str, list[Rejection]] = defaultdict(list)
    if plan.balance is not None:
        for rejection in unbalancing(_turns(kept), plan.balance):
            lost[rejection.id].append(rejection)
    for name, rejections in lost.items():
        candidate = by_id[name]
        where = candidate.task, candidate.index
        if len(rejections) == candidate.print.turns:
            first = rejections[0]
            detail = f"all {len(rejections)} turns are out; {first.detail}"
            whole = Rejection("balance", "no_turns_left", detail, name, first.file)
            decisions.losses.append(Loss(*where, whole, len(rejections)))
            del by_id[name]
            continue
        for rejection in rejections:
            at = TURN_FIELD.fullmatch(rejection.field)
            assert at is not None
            decisions.turns_out[where].add(int(at[1]))
            decisions.losses.append(Loss(*where, rejection, 1, whole=False))
    for candidate in by_id.values():
        decisions.kept.setdefault(candidate.task, []).append(candidate.index)


def _turns(kept: Iterable[_Candidate]) -> Iterator[TurnPrint]:
    for candidate in kept:
        yield from candidate.print.balance
