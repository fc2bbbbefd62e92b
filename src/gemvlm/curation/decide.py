"""Decisions that need the whole set: repeated ids, near-duplicates, shares of the limit, balance.

They look at prints only, in the order of the parts, so they come out the same whoever made the parts and in whatever
order those were finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from gemvlm.curation.answer_balance import TurnPrint, unbalancing
from gemvlm.curation.duplicates import MediaPrint, find_duplicates
from gemvlm.curation.filters import TURN_FIELD
from gemvlm.curation.part import Task, read_prints
from gemvlm.curation.plan import Plan
from gemvlm.curation.source import Rejection

PartsOf = Callable[[str], Iterator[Task]]
"""The finished parts of the source of that name, in order; they are made as they are asked for."""

FolderOf = Callable[[Task], Path]


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
    turns_out: dict[tuple[Task, int], set[int]] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)


class _Place(NamedTuple):
    """Where a sample is stored, and how many questions it has."""

    task: Task
    number: int
    turns: int


def decide(plan: Plan, parts_of: PartsOf, folder_of: FolderOf) -> Decisions:
    """Goes through the parts of each source until its quota is full, then evens out the answers of what was kept."""
    decisions = Decisions()
    kept: dict[str, _Place] = {}
    twins: dict[str, Rejection] = {}

    def prints() -> Iterator[MediaPrint]:
        """Prints of what may be kept; by the time the next is asked for, `twins` holds the last one if it is a twin."""
        for use in plan.present():
            quota, taken = plan.quotas()[use.name], 0
            for task in parts_of(use.name):
                decisions.tasks.append(task)
                for index, item in enumerate(read_prints(folder_of(task))):
                    name, record = item.media.id, item.media.record
                    if taken == quota:
                        loss = Rejection("balance", "over_quota", f"{use.name!r} has its {quota} samples", name, record)
                    elif name in kept or name in twins:
                        loss = Rejection("duplicate", "repeated_id", f"another sample is called {name!r}", name, record)
                    else:
                        if plan.duplicates is not None:
                            yield item.media
                        if name not in twins:
                            kept[name] = _Place(task, index, item.turns)
                            taken += 1
                            continue
                        loss = twins[name]
                    decisions.losses.append(Loss(task, index, loss, item.turns))
                if taken == quota:
                    break

    for rejection in find_duplicates(prints(), plan.duplicates):
        twins[rejection.id] = rejection
    if plan.balance is not None:
        found = unbalancing(_turns(decisions.tasks, kept, folder_of), plan.balance)
        for name, rejections in groupby(found, key=lambda rejection: rejection.id):
            if not _leave_out(kept[name], list(rejections), decisions):
                del kept[name]
    for place in kept.values():
        decisions.kept.setdefault(place.task, []).append(place.number)
    return decisions


def _leave_out(place: _Place, rejections: list[Rejection], decisions: Decisions) -> bool:
    """Takes these questions out of a sample. False if none is left: then the sample goes as a whole."""
    task, index, turns = place
    if len(rejections) == turns:
        first = rejections[0]
        detail = f"all {turns} turns are out; {first.detail}"
        whole = Rejection("balance", "no_turns_left", detail, first.id, first.file)
        decisions.losses.append(Loss(task, index, whole, turns))
        return False
    for rejection in rejections:
        at = TURN_FIELD.fullmatch(rejection.field)
        assert at is not None
        decisions.turns_out.setdefault((task, index), set()).add(int(at[1]))
        decisions.losses.append(Loss(task, index, rejection, 1, whole=False))
    return True


def _turns(tasks: list[Task], kept: dict[str, _Place], folder_of: FolderOf) -> Iterator[TurnPrint]:
    """Prints of the questions of all that is kept; read again, since they fill more memory than all else here."""
    for task in tasks:
        for index, item in enumerate(read_prints(folder_of(task))):
            place = kept.get(item.media.id)
            if place is not None and place[:2] == (task, index):
                yield from item.balance
