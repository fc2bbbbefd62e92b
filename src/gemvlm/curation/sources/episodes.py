"""Samples from robot episodes: what comes next, what remains, what was done, which task, how far, which order, success.

Planning families P1, P2, P3, P4, P9 and P12 of the data notes, from what an episode states: its task, its sub-tasks
with their frames, whether it succeeded. Margins: a moment lies 0.3 s inside its sub-task; a step is asked about only if
its neighbour has another text; two frames to be ordered are 15 % of the episode apart and show different sub-tasks;
shares of progress to choose from lie 20 points apart; an unfinished attempt ends 0.5 s before the last sub-task begins,
and at the latest at 60 % of the time. The answer of a choice stands at a random letter.

Episodes come from LeRobot folders (`data/episodes`). Everything is drawn from the seed and the episode's id.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gemvlm.curation.questions.wording import pick, shuffled
from gemvlm.curation.source import Rejection
from gemvlm.curation.sources.folder import resolve_folder
from gemvlm.curation.sources.records import UNREADABLE, RecordError, rejection
from gemvlm.data.episodes import Episode, LeRobotFolder
from gemvlm.data.quarantine import check
from gemvlm.sample import Provenance, Sample, Turn

SAMPLES_PER_PART = 100
SWITCH_MARGIN_S = 0.3
FLIP_MARGIN_S = 0.5
MOST_REMAINING = 8
LEAST_APART = 0.15
UNFINISHED_SHARE = 0.6
SHARE_STEP, SHARE_GAP = 5, 20
LETTERS = "ABCD"

NOW_NEXT = (
    "What will the robot do after its current step?",
    "Which step comes next, once the robot has finished what it is doing in the last picture?",
    "The last picture shows the present. Name the step that follows the present one.",
)
REMAINING = (
    "Which steps remain after the current one? List them in order.",
    "After the step that the robot is doing now, what is left to do, in order?",
    "List what the robot still has to do once its present step is finished.",
)
JUST_DONE = (
    "Which step did the robot finish just before the current one?",
    "What has the robot just completed?",
    "Name the last step that was finished before the one in the last picture.",
)
WHICH_TASK = (
    "Which task is the robot carrying out?",
    "What was the robot told to do?",
    "These pictures show one attempt from beginning to end. What is its goal?",
)
HOW_FAR = (
    "How much of the time that this task takes has passed in the last picture?",
    "Judging by the last picture, which share of the whole attempt lies behind the robot?",
    "The attempt starts at 0 % and ends at 100 %. Where is it in the last picture?",
)
WHICH_LATER = (
    "Which of the two pictures was taken later in the attempt, the first or the second?",
    "Two moments of one attempt, in unknown order: which picture shows the later one?",
    "Is it the first or the second picture that comes later in time?",
)
SUCCEEDED = (
    "Has the robot completed the task in the last picture?",
    "Looking at the last picture, is the task done?",
    "At the end of these pictures, has the goal been reached?",
)


@dataclass(frozen=True)
class Episodes:
    """`path` is a LeRobot folder or a hub id with a `revision`.

    Each episode gives up to `moments` samples about its steps and one each about its task, its order and its success.
    A sample shows `frames` pictures (at least 2) of `camera`, the first of the folder by default.
    """

    path: Path | str
    revision: str = ""
    camera: str = ""
    licence: str | None = None
    moments: int = 3
    frames: int = 8
    seed: int = 0

    @property
    def name(self) -> str:
        return "episodes"

    def parts(self) -> Sequence[str]:
        if self.moments < 1 or self.frames < 2:
            raise ValueError(f"episodes: moments {self.moments} must be at least 1, frames {self.frames} at least 2")
        folder = self._folder
        if not folder.cameras or (self.camera and self.camera not in folder.cameras):
            raise ValueError(f"{folder.path}: no camera {self.camera!r}; it has {sorted(folder.cameras)}")
        size = max(1, SAMPLES_PER_PART // (self.moments + 4))
        return [f"{at}-{min(at + size, len(folder))}" for at in range(0, len(folder), size)]

    def read(self, part: str) -> Iterator[Sample | Rejection]:
        start, stop = map(int, part.split("-"))
        for number in range(start, stop):
            try:
                samples = self._samples(self._folder[number], number)
            except UNREADABLE as error:
                yield rejection(error, self._folder.path.name, number)
            else:
                yield from samples

    @cached_property
    def _folder(self) -> LeRobotFolder:
        return LeRobotFolder(resolve_folder(self.path, self.revision), self.licence)

    @cached_property
    def _tasks(self) -> tuple[str, ...]:
        return tuple(sorted({text.strip() for text in self._folder.layout.tasks.values() if text.strip()}))

    def _samples(self, episode: Episode, number: int) -> list[Sample]:
        planned = list(_moments(episode, self.moments, self.frames, self._rng(episode, "moments")))
        planned += _task(episode, self._tasks, self.frames, self._rng(episode, "task"))
        planned += _order(episode, self._rng(episode, "order"))
        planned += _success(episode, self.frames, self._rng(episode, "success"))
        if not planned:
            raise RecordError(
                "no_question", f"episode {episode.id} states neither task nor steps to ask about", "tasks"
            )
        camera = self.camera or next(iter(episode.cameras))
        provenance = Provenance(self.revision, "train", episode.licence, f"{self._folder.path.name}:{number}")
        samples = []
        for name, indices, turns in planned:
            frames = episode.frames(camera, indices)
            meta = {"episode": episode.id, "frames": list(indices), "camera": camera}
            made = Sample(f"{episode.id}/{name}", frames, tuple(turns), episode.id, self.name, meta, provenance)
            if (defect := check(made)) is not None:
                raise RecordError("unusable", str(defect), defect.field)
            samples.append(made)
        return samples

    def _rng(self, episode: Episode, purpose: str) -> np.random.Generator:
        return np.random.default_rng((self.seed, zlib.crc32(episode.id.encode()), zlib.crc32(purpose.encode())))


Planned = tuple[str, list[int], list[Turn]]
"""A sample to be: its name, the frames that it shows, the turns about them."""


def _moments(episode: Episode, count: int, frames: int, rng: np.random.Generator) -> Iterator[Planned]:
    """P1, P2, P3 and P9 at random moments, each in another sub-task as long as there are any."""
    margin = int(np.ceil(SWITCH_MARGIN_S * episode.fps))
    wide = [i for i, part in enumerate(episode.subtasks) if part.stop - part.start > 2 * margin]
    asked = [int(i) for i in rng.permutation(wide)[:count]]
    for i in sorted(asked):
        part = episode.subtasks[i]
        now = int(rng.integers(part.start + margin, part.stop - margin))
        turns = [*_steps(episode, i, rng), *_progress(episode, now, rng)]
        if turns:
            yield f"moment-{now:06d}", _spread(0, now, frames), turns
    if not wide:
        now = int(rng.integers(episode.length))
        if turns := list(_progress(episode, now, rng)):
            yield f"moment-{now:06d}", _spread(0, now, frames), turns


def _steps(episode: Episode, i: int, rng: np.random.Generator) -> Iterator[Turn]:
    """Questions about the neighbours of sub-task `i`. What comes next needs a goal."""
    texts = [part.text for part in episode.subtasks]
    rest = texts[i + 1 :]
    if episode.instruction and rest and rest[0] != texts[i]:
        yield _step_turn("next_step", NOW_NEXT, rest[0], texts, episode, rng)
    if episode.instruction and 1 <= len(rest) <= MOST_REMAINING:
        listed = " ".join(f"{number}. {text}" for number, text in enumerate(rest, 1))
        yield Turn(_asked(REMAINING, episode, rng), listed, "remaining_steps", "planning", "text")
    if i > 0 and texts[i - 1] != texts[i]:
        yield _step_turn("past_step", JUST_DONE, texts[i - 1], texts, episode, rng)


def _step_turn(
    family: str, phrasings: Sequence[str], answer: str, texts: Sequence[str], episode: Episode, rng: np.random.Generator
) -> Turn:
    """An open question, or as often one that offers steps of the same episode."""
    question = _asked(phrasings, episode, rng)
    others = shuffled(sorted(set(texts) - {answer}), rng)[: len(LETTERS) - 1]
    if len(others) < 2 or rng.random() < 0.5:
        return Turn(question, answer, family, "planning", "text")
    return _choice(family, question, answer, others, rng)


def _progress(episode: Episode, now: int, rng: np.random.Generator) -> Iterator[Turn]:
    """P9 as shares to choose from."""
    share = 100 * now / max(episode.length - 1, 1)
    answer = round(share / SHARE_STEP) * SHARE_STEP
    others: list[int] = []
    for value in rng.permutation(np.arange(0, 101, SHARE_STEP)).tolist():
        if all(abs(value - taken) >= SHARE_GAP for taken in (answer, *others)) and len(others) < len(LETTERS) - 1:
            others.append(value)
    if episode.instruction and len(others) >= 2:
        question = _asked(HOW_FAR, episode, rng)
        yield _choice("progress", question, f"{answer} %", [f"{value} %" for value in others], rng)


def _task(episode: Episode, tasks: Sequence[str], frames: int, rng: np.random.Generator) -> Iterator[Planned]:
    """P12: the task among others of the folder, or in free words where there is but one."""
    if not episode.instruction:
        return
    indices = _spread(0, episode.length - 1, frames)
    others = shuffled([task for task in tasks if task != episode.instruction], rng)[: len(LETTERS) - 1]
    question = pick(WHICH_TASK, rng)
    turns = [Turn(question, episode.instruction, "task_name", "planning", "text")]
    if others:
        turns = [_choice("task_name", question, episode.instruction, others, rng)]
    yield "task", indices, turns


def _order(episode: Episode, rng: np.random.Generator) -> Iterator[Planned]:
    """P9 as the order of two frames, shown in random order."""
    apart = int(np.ceil(LEAST_APART * episode.length))
    if episode.length <= apart + 1:
        return
    for _ in range(20):
        early = int(rng.integers(episode.length - apart))
        late = int(rng.integers(early + apart, episode.length))
        steps = episode.subtask_at(early), episode.subtask_at(late)
        if episode.subtasks and (None in steps or steps[0] == steps[1]):
            continue
        second_is_later = bool(rng.random() < 0.5)
        turn = Turn(
            _asked(WHICH_LATER, episode, rng),
            "second" if second_is_later else "first",
            "frame_order",
            "planning",
            "choice",
            options=("first", "second"),
        )
        yield "order", [early, late] if second_is_later else [late, early], [turn]
        return


def _success(episode: Episode, frames: int, rng: np.random.Generator) -> Iterator[Planned]:
    """P4 where success is annotated: the end of the attempt, and of a successful one also its unfinished beginning."""
    if episode.success is None or not episode.instruction:
        return
    answer = "yes" if episode.success else "no"
    question = _asked(SUCCEEDED, episode, rng)
    ended = Turn(question, answer, "task_success", "planning", "yes_no")
    yield "end", _spread(0, episode.length - 1, frames), [ended]
    if episode.success:
        last = int(UNFINISHED_SHARE * episode.length)
        if episode.subtasks:
            last = min(last, episode.subtasks[-1].start - int(np.ceil(FLIP_MARGIN_S * episode.fps)))
        if last >= 1:
            cut = int(rng.integers(max(1, last // 2), last + 1))
            unfinished = Turn(question, "no", "task_success", "planning", "yes_no")
            yield "cut", _spread(0, cut, frames), [unfinished]


def _choice(family: str, question: str, answer: str, others: Sequence[str], rng: np.random.Generator) -> Turn:
    """Lettered options below the question; the answer is a letter."""
    shown = shuffled([answer, *others], rng)
    letters = LETTERS[: len(shown)]
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, shown, strict=True))
    return Turn(
        f"{question}\n{listed}", letters[shown.index(answer)], family, "planning", "choice", options=tuple(letters)
    )


def _asked(phrasings: Sequence[str], episode: Episode, rng: np.random.Generator) -> str:
    question = pick(phrasings, rng)
    return f"The robot's task: {episode.instruction}. {question}" if episode.instruction else question


def _spread(first: int, last: int, count: int) -> list[int]:
    """Up to `count` different frames at even distances, both ends among them."""
    return sorted({int(index) for index in np.linspace(first, last, count).round()})
