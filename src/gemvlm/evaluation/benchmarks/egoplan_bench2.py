"""EgoPlan-Bench2 (hub `qiulu66/EgoPlan-Bench2`): the next action towards a goal, from videos by the one who acts.

Publisher: qiulu66/EgoPlan-Bench2, `eval.py` and `README.md` (5be8155). Read from the hub's `EgoPlan-Bench2.json`
(21d2196), an array of `sample_id`, `domain`, `scenario`, `task_goal`, `choice_a` to `choice_d`, `golden_choice_idx` (a
letter), `task_start_frame`, `current_observation_frame`; and what the publisher's script cuts from Ego4D between these
two frames: `visual/keyframes_dir/SAMPLE_ID/frame-N_frameID-*.png` (eight pictures) or `visual/clip_dir/SAMPLE_ID.mp4`.
Or from the copy with pictures, `nv-njb/egoplan-bench2`: `data/*.parquet` with `formatted_question`, `ground_truth` and
`keyframes` beside.

Rule: the first capital A, B, C or D that is left when set phrases are cut out of the reply. Accuracy over all
questions.

Protocols: `official`; `lmms_eval` (EvolvingLMMs-Lab/lmms-eval 75571cfe, `tasks/egoplan2`) cuts fewer phrases, so that
"Answer: B" is A.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from gemvlm.evaluation.benchmark import Item, Media
from gemvlm.evaluation.benchmarks.lettered import LetterBenchmark, Reader, truth_letter
from gemvlm.evaluation.choices import LONGEST_REPLY, first_capital
from gemvlm.evaluation.published import need, picture, rows, video

ANNOTATIONS = "EgoPlan-Bench2.json"
PROMPT = (
    "\nSelect the best answer to the following multiple-choice question based on the video. Respond with only the "
    "letter (A, B, C, or D) of the correct option.\n\nConsidering the progress shown in the video and my current "
    "observation in the last frame, what action should I take next in order to {}?\n\n{}\n"
)
PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",  # a comma is missing between the publisher's strings
    "Best answer:Best option:",
)
MORE_PHRASES = ("Answer:", "Option:", "The correct answer", "The correct option")
FRAMES = 8


def _reader(*phrases: str) -> Reader:
    def read(reply: str, item: Item) -> str | None:
        text = reply[:LONGEST_REPLY].strip()
        for phrase in phrases:
            text = text.replace(phrase, "")
        return first_capital(text)

    return read


@dataclass(frozen=True)
class EgoPlanBench2(LetterBenchmark):
    """The publisher's annotations beside what it cuts from Ego4D, or the copy with pictures."""

    name: ClassVar[str] = "egoplan_bench2"
    hub_id: ClassVar[str] = "qiulu66/EgoPlan-Bench2"
    readers: ClassVar[dict[str, Reader]] = {
        "official": _reader(*PHRASES, *MORE_PHRASES),
        "lmms_eval": _reader(*PHRASES),
    }

    def read(self) -> Iterator[Item]:
        published = (self.folder / ANNOTATIONS).is_file()
        for where, row in rows(self.folder, ANNOTATIONS if published else "data/*.parquet"):
            options = tuple(need(row, f"choice_{letter}", str, where) for letter in "abcd")
            name, domain, goal = (need(row, field, str, where) for field in ("sample_id", "domain", "task_goal"))
            asked = PROMPT.format(goal, "\n".join(f"{a}. {option}" for a, option in zip("ABCD", options, strict=True)))
            truth = need(row, "golden_choice_idx" if published else "ground_truth", str, where)
            yield Item(
                id=name,
                media=self._cut(name, where) if published else self._copied(row, where),
                prompt=asked if published else need(row, "formatted_question", str, where),
                truth=truth_letter(truth, options, where),
                category=domain,
                scene=name.rpartition("_")[0] or name,
                options=options,
                frames=FRAMES,
                max_new_tokens=16,
            )

    def _cut(self, name: str, where: str) -> tuple[Media, ...]:
        """The key frames in their order, else the clip."""
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"{where}: sample_id {name!r:.80} is no name of a file")
        folder = f"visual/keyframes_dir/{name}"
        found = {int(path.name.split("_")[0].removeprefix("frame-")): path for path in self._frames(folder)}
        if not found and not (self.folder / f"visual/clip_dir/{name}.mp4").is_file():
            raise ValueError(
                f"{where}: neither {folder}/frame-*_frameID-*.png nor visual/clip_dir/{name}.mp4 is there; cut them "
                "from Ego4D with the publisher's eval.py, or give a copy of nv-njb/egoplan-bench2"
            )
        if not found:
            return (video(f"visual/clip_dir/{name}.mp4", self.folder, where),)
        if sorted(found) != list(range(FRAMES)):
            raise ValueError(f"{where}: {folder} has the frames {sorted(found)}; expected 0 to {FRAMES - 1}")
        return tuple(picture(f"{folder}/{found[number].name}", self.folder, where) for number in sorted(found))

    def _frames(self, folder: str) -> list[Any]:
        pattern = re.compile(r"frame-\d{1,4}_frameID-\d+\.png")
        return [path for path in (self.folder / folder).glob("frame-*.png") if pattern.fullmatch(path.name)]

    def _copied(self, row: dict[str, Any], where: str) -> tuple[Media, ...]:
        frames = need(row, "keyframes", list, where)
        if not frames:
            raise ValueError(f"{where}: field 'keyframes' is empty; fetch the file again")
        return tuple(picture(frame, self.folder, f"{where} keyframe {k}") for k, frame in enumerate(frames))
