"""What the trainings of an experiment share, made once: samples, a teacher's depth, questions, looks."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from gemvlm.curation.card import CARD
from gemvlm.curation.depth_teacher import load_teacher
from gemvlm.experiments.altered import labelled
from gemvlm.experiments.arm import get_arm
from gemvlm.experiments.experiment import Experiment, Task, TestSet
from gemvlm.experiments.measure import test_samples, write_json
from gemvlm.experiments.mechanism import look_samples
from gemvlm.recipes.data import SETTINGS, check_place, make_data, progress
from gemvlm.shards import MANIFEST, Manifest, ShardReader, write_shards

NOTE = "experiment.json"
TAUGHT = "taught"
TEACHER = "gem:nano"
MAY_DIFFER = ("name", "arms", "contrasts", "seeds", "more_seeds")
"""Between experiments in one folder: the trainings that they share are alike."""


@dataclass(frozen=True)
class Given:
    """What a user gives an experiment: a curated set in place of its own scenes, and where published weights lie.

    `start` holds words as `gemvlm train --start` has them; without any the recipe's hub ids are fetched. `teacher` made
    the depth that the arm `teacher` learns from, by its name in `gemvlm.curation.depth_teacher.load_teacher`.
    """

    data: Path | None = None
    start: tuple[str, ...] = ()
    teacher: str = TEACHER

    def words(self) -> list[str]:
        """The same on a command line."""
        data = [] if self.data is None else ["--data", str(self.data)]
        teacher = [] if self.teacher == TEACHER else ["--teacher", self.teacher]
        return data + [word for place in self.start for word in ("--start", place)] + teacher


NOTHING = Given()


def prepare(experiment: Experiment, out: Path, given: Given = NOTHING) -> None:
    """What all tasks share: training scenes, a teacher's depth of them, held-out questions, scenes to be looked at.

    Each is made once.

    ValueError if a set is given that is none or another than the arms so far have learned from, or if places of
    weights are given that nothing begins with.
    """
    if given.start and experiment.pretrains:
        raise ValueError(f"--start: experiment {experiment.name} begins with random weights; leave it out")
    assert experiment.base.data is not None
    if given.data is None:
        make_data(experiment.base.data, out / "data")
    else:
        check_place(experiment.base, out, given.data)
    _refuse_other_data(experiment, out, given)
    if any(map(_is_taught, experiment.arms)) and not (out / TAUGHT).is_dir():
        _label(_data(out, given), out / TAUGHT, given.teacher)
    for test in (experiment.development, *experiment.tests):
        if not ((place := place_of(test, experiment, out)) / MANIFEST).is_file():
            test_samples(test, experiment.base, place)
    look_samples(experiment, out)


def _refuse_other_data(experiment: Experiment, out: Path, given: Given) -> None:
    """Notes what the arms learn from and how, so that no later command goes on with another set or recipe."""
    settings = {name: value for name, value in vars(experiment).items() if name not in MAY_DIFFER}
    now = {
        "data": Manifest.from_folder(_data(out, given)).hash,
        "settings": hashlib.sha256(repr(settings).encode()).hexdigest()[:16],
    }
    if any(map(_is_taught, experiment.arms)):
        now["teacher"] = given.teacher
    if (note := out / NOTE).is_file():
        before = json.loads(note.read_text(encoding="utf-8"))
        if any(name in now and now[name] != value for name, value in before.items()):
            raise ValueError(
                f"{note}: the arms so far are of {before}, this command's would be of {now}; give the same --data, "
                "--teacher and recipes as before, or another --out"
            )
        now = {**before, **now}
    out.mkdir(parents=True, exist_ok=True)
    write_json(now, note)


def _data(out: Path, given: Given) -> Path:
    return out / "data" if given.data is None else given.data


def _is_taught(arm: str) -> bool:
    """Whether it learns a teacher's depth."""
    return get_arm(arm).alteration.depth == "teacher"


def learned_from(task: Task, out: Path, given: Given) -> Path:
    """The samples of a task: the shared ones, or those with a teacher's depth."""
    return out / TAUGHT if task.arm is not None and _is_taught(task.arm) else _data(out, given)


def _label(data: Path, taught: Path, teacher: str) -> None:
    """The set with a teacher's depth; what it was made with stays beside it."""
    draft = taught.with_name(taught.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    samples = ShardReader(data)
    write_shards(progress(labelled(samples, load_teacher(teacher)), len(samples), "a teacher's depth"), draft)
    for name in (CARD, SETTINGS):
        if (data / name).is_file():
            shutil.copy(data / name, draft / name)
    draft.rename(taught)


def place_of(test: TestSet, experiment: Experiment, out: Path) -> Path:
    which = "development" if test is experiment.development else test.name
    return out / "tests" / which
