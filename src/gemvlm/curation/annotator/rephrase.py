"""Other words for the same questions and descriptions, from an annotator that is not trusted.

Only texts are rephrased, never answers that are scored: a question's wording, or the prose of a description. Each is
read again by `meaning.changed`; what has changed is thrown away and counted, and the original stays.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from gemvlm.curation.annotator.client import Annotator, Message, Reply
from gemvlm.curation.annotator.meaning import changed
from gemvlm.curation.filters import FilterRules, answer_in_question, reject
from gemvlm.curation.refusal import Refusal
from gemvlm.curation.source import Rejection
from gemvlm.sample import PLACE_MARKER, Frame, Sample, Turn

INSTRUCTION = (
    "Rewrite the text between the lines in other words. Keep its meaning exactly. Keep every name, colour, letter and "
    "number, every marker like <place:0> and every word of direction or comparison, in the same order. Add nothing. "
    "Reply with the rewritten text alone.\n---\n{text}\n---"
)
CAPTION = (
    "Write one or two fluent sentences about this picture that name exactly the things listed between the lines, in "
    "the same order, each directly followed by its marker like <place:0>. Add no other thing, colour, number or "
    "relation. Reply with the sentences alone.\n---\n{text}\n---"
)
LONGEST_FACTOR = 3
"""A rephrasing this many times as long as its original says something else besides."""


@dataclass(frozen=True)
class Rephrased:
    """A sample with new words where they passed, and why others did not (`refused`: those turns keep their words).

    `meta["rephrased"]` of the sample names the model and the turns.
    """

    sample: Sample
    refused: tuple[Rejection, ...]


def rephrase(samples: Sequence[Sample], annotator: Annotator) -> list[Rephrased]:
    """New words for the question of every turn; all requests of a call run side by side."""
    return _rewritten(samples, annotator, "question", INSTRUCTION)


def caption(samples: Sequence[Sample], annotator: Annotator) -> list[Rephrased]:
    """Prose for the answers of `description` turns with places, written in sight of the first frame."""
    return _rewritten(samples, annotator, "answer", CAPTION)


def _rewritten(
    samples: Sequence[Sample], annotator: Annotator, part: Literal["question", "answer"], instruction: str
) -> list[Rephrased]:
    at = [
        (i, j)
        for i, sample in enumerate(samples)
        for j, turn in enumerate(sample.turns)
        if part == "question" or _is_description(turn)
    ]
    requests = [
        _request(instruction, getattr(samples[i].turns[j], part), None if part == "question" else samples[i].frames)
        for i, j in at
    ]
    found: dict[int, dict[int, str | Refusal]] = {i: {} for i in range(len(samples))}
    for (i, j), reply in zip(at, annotator.ask_many(requests), strict=True):
        words = _text(reply)
        if isinstance(words, str):
            words = _refused(samples[i], j, part, words) or words
        found[i][j] = words
    return [_applied(sample, found[i], part, annotator) for i, sample in enumerate(samples)]


def _applied(
    sample: Sample, found: Mapping[int, str | Refusal], part: Literal["question", "answer"], annotator: Annotator
) -> Rephrased:
    turns, done, refused = list(sample.turns), [], []
    for j, words in found.items():
        if isinstance(words, Refusal):
            detail = f"turn {j} keeps its {part}: {words.detail}"
            refused.append(reject(sample, f"rephrase_{words.reason}", detail, f"turns[{j}].{part}", "questions"))
        else:
            turns[j] = replace(turns[j], question=words) if part == "question" else replace(turns[j], answer=words)
            done.append(j)
    if not done:
        return Rephrased(sample, tuple(refused))
    earlier = sample.meta.get("rephrased", {})
    meta = {**sample.meta, "rephrased": {**earlier, part: {"model": annotator.endpoint.model, "turns": done}}}
    return Rephrased(replace(sample, turns=tuple(turns), meta=meta), tuple(refused))


def _refused(sample: Sample, index: int, part: str, words: str) -> Refusal | None:
    turn = sample.turns[index]
    if words == getattr(turn, part):
        return Refusal("same", "the text came back as it was")
    return caption_refused(turn.answer, words) if part == "answer" else question_refused(turn, words)


def caption_refused(facts: str, prose: str) -> Refusal | None:
    """Why prose does not say just the facts: every marker in order, and before each the words that stood there."""
    if refusal := _shape_refused(facts, prose) or changed(facts, prose):
        return refusal
    before, after = (PLACE_MARKER.split(text)[::2] for text in (facts, prose))
    for was, now in zip(before[:-1], after[:-1], strict=True):
        if refusal := changed(was, now):
            return Refusal("places", f"another thing stands before a marker: {refusal.detail}")
    return None


def question_refused(turn: Turn, words: str) -> Refusal | None:
    """Why the turn's question may not be put in these words: they changed what is asked, or name the answer."""
    if refusal := _shape_refused(turn.question, words) or changed(turn.question, words, turn.options):
        return refusal
    alone = Sample("", (), (replace(turn, question=words),), "", "")
    leak = answer_in_question(alone, 0, FilterRules())
    return Refusal("answer", "the new words name the answer") if leak else None


def _shape_refused(original: str, text: str) -> Refusal | None:
    if "\n" in text or len(text) > LONGEST_FACTOR * max(len(original), 40):
        return Refusal("shape", f"{len(text)} characters in {text.count(chr(10)) + 1} lines")
    if not text.isprintable() or re.search(r"<(?!place:\d+>)", text):
        return Refusal("shape", "it holds markup or control characters")
    if original.count("<image>") != text.count("<image>"):
        return Refusal("shape", "it holds another number of images")
    return None


def _text(reply: Reply) -> str | Refusal:
    """The reply without quotation marks or fences around it."""
    if reply.text is None:
        return Refusal(reply.failure, reply.detail)
    text = reply.text.strip()
    for mark in ("```", "---", '"', "'"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            text = text[len(mark) : -len(mark)].strip()
    return text


def _request(instruction: str, text: str, frames: tuple[Frame, ...] | None) -> list[Message]:
    words = instruction.format(text=text)
    if not frames:
        return [{"role": "user", "content": words}]
    buffer = io.BytesIO()
    Image.fromarray(frames[0].image).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return [
        {"role": "user", "content": [{"type": "text", "text": words}, {"type": "image_url", "image_url": {"url": url}}]}
    ]


def _is_description(turn: Turn) -> bool:
    return turn.task == "description" and turn.kind == "text" and bool(turn.places) and "<place:" in turn.answer
