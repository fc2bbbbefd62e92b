"""LLaVA- and Qwen-style records: who speaks, where the pictures stand, and turns of the right kind.

The format is that of LLaVA's `train.py` (haotian-liu/LLaVA) and of Qwen's fine-tuning tools, as GEM's
`qwenvl/data/data_processor.py` reads it (zhaorw02/GEM, 5500948): `image` and `video` name files, `conversations` lists
{"from": "human" | "gpt", "value": text}, and the tags `<image>` and `<video>` in human text take the files in order, so
their numbers must agree. `messages` with {"role", "content"} (ms-swift, OpenAI) are the same with other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from gemvlm.curation.sources.choices import listed_options, matched
from gemvlm.curation.sources.places import Coordinates, place_kind, refuse_markers, with_places, without_range
from gemvlm.curation.sources.records import RecordError
from gemvlm.data.conversation import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from gemvlm.sample import Frame, Place, Task, Turn

SPEAKERS = {
    "human": "user", "user": "user", "question": "user",
    "gpt": "assistant", "assistant": "assistant", "model": "assistant", "answer": "assistant",
    "system": "system",
}  # fmt: skip
LARGEST_TEXT = 1 << 20
LONGEST_NAME = 200
MOST_FILES = 1000
"""Of one record. Each is opened: without a limit one damaged line could name the same picture a million times."""
_TAG = re.compile(f"{IMAGE_PLACEHOLDER}|{VIDEO_PLACEHOLDER}")
Choices = Literal["required", "noticed", "ignored"]


@dataclass(frozen=True)
class Conversation:
    """What was said: (question, answer) pairs in order, and the files that the messages themselves name."""

    exchanges: tuple[tuple[str, str], ...]
    system: str | None = None
    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()


@dataclass(frozen=True)
class TurnRules:
    """How a source's text becomes turns.

    `choices`: every answer is one of the listed options ("required"), may be ("noticed"), or options stay text
    ("ignored"). `coordinates`: what numbers in the text are, None if nobody says, and they stay text.
    """

    family: str
    task: Task = "reasoning"
    choices: Choices = "noticed"
    coordinates: Coordinates | None = None


def read_conversation(record: Mapping[str, Any]) -> Conversation:
    """The conversation of a record. RecordError unless user and assistant take turns, user first, and all is text."""
    field = next((name for name in ("conversations", "conversation", "messages") if name in record), None)
    if field is None:
        raise RecordError(
            "no_conversation", f"no 'conversations' or 'messages' among {sorted(record)}", "conversations"
        )
    messages = record[field]
    if not isinstance(messages, list) or not messages:
        raise RecordError("no_conversation", f"expected a list of messages, found {messages!r:.80}", field)
    images: list[str] = []
    videos: list[str] = []
    said = [_message(message, field, images, videos) for message in messages]
    system = said.pop(0)[1] if said[0][0] == "system" else None
    speakers = [speaker for speaker, _ in said]
    if not said or speakers != ["user", "assistant"] * (len(said) // 2):
        order = ", ".join(speakers) or "nobody"
        raise RecordError("speakers", f"user and assistant must take turns, the user first; found {order:.120}", field)
    exchanges = tuple((said[index][1], said[index + 1][1]) for index in range(0, len(said), 2))
    if not all(answer.strip() for _, answer in exchanges):
        raise RecordError("empty_answer", "an answer is empty", field)
    return Conversation(exchanges, system, few(images, field), few(videos, field))


def _message(message: Any, field: str, images: list[str], videos: list[str]) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise RecordError("speakers", f"a message is {message!r:.80}; expected an object", field)
    name = message.get("from", message.get("role"))
    speaker = SPEAKERS.get(name.lower()) if isinstance(name, str) else None
    if speaker is None:
        raise RecordError("speakers", f"speaker {name!r:.80} is not one of {sorted(SPEAKERS)}", field)
    value = message.get("value", message.get("content"))
    if isinstance(value, list):
        value = "".join(_piece(piece, field, images, videos) for piece in value)
    return speaker, read_text(value, field)


def _piece(piece: Any, field: str, images: list[str], videos: list[str]) -> str:
    """One part of an OpenAI-style message: text, or a file that becomes its tag."""
    kind = piece.get("type") if isinstance(piece, dict) else None
    if kind == "text":
        return read_text(piece.get("text"), field)
    if kind in ("image", "video"):
        (images if kind == "image" else videos).append(read_text(piece.get(kind), field))
        return IMAGE_PLACEHOLDER if kind == "image" else VIDEO_PLACEHOLDER
    raise RecordError("bad_text", f"a part of a message is {piece!r:.80}; expected text, image or video", field)


def read_text(value: Any, field: str) -> str:
    """A string that every writer can encode and that holds none of our own markers. RecordError otherwise."""
    if not isinstance(value, str) or len(value) > LARGEST_TEXT:
        raise RecordError("bad_text", f"expected text, found {value!r:.80}", field)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError("bad_text", f"the text holds half a character ({error.reason})", field) from error
    refuse_markers(value, field)
    return value


def read_name(value: Any, field: str) -> str:
    """A short text, such as the name of a kind of question. RecordError otherwise."""
    name = read_text(value, field)
    if not 0 < len(name) <= LONGEST_NAME:
        raise RecordError("bad_text", f"expected a name of 1 to {LONGEST_NAME} characters, found {name!r:.80}", field)
    return name


def file_names(record: Mapping[str, Any], *fields: str) -> tuple[str, ...]:
    """The files under the first of `fields` that the record has, a string or a list of them; () if null or absent."""
    field = next((name for name in fields if record.get(name) is not None), None)
    value = None if field is None else record[field]
    names = [value] if isinstance(value, str) else value
    if names is None or names == "":
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise RecordError(
            "bad_path", f"expected the name of a file or a list of them, found {value!r:.80}", field or ""
        )
    return few(names, field or "")


def few(names: Sequence[str], field: str) -> tuple[str, ...]:
    """The names of a record's files. RecordError for more than `MOST_FILES`."""
    if len(names) > MOST_FILES:
        raise RecordError(
            "too_many_files", f"{len(names)} files in one record, more than {MOST_FILES}; split it", field
        )
    return tuple(names)


def lay_out(
    exchanges: Sequence[tuple[str, str]],
    images: Sequence[Frame],
    videos: Sequence[Sequence[Frame]] = (),
    *,
    tags: Literal["exact", "optional"] = "exact",
) -> tuple[tuple[tuple[str, str], ...], tuple[Frame, ...]]:
    """The exchanges with one `<image>` per frame, and the frames in the order of their tags.

    A `<video>` becomes as many `<image>` as frames were taken of it. RecordError unless there are as many tags as files
    ("optional": or none at all, then images come first) and all stand in the first question, where models see them.
    """
    questions = [question for question, _ in exchanges]
    found = [tag for question in questions for tag in tags_in(question)]
    counts = (found.count(IMAGE_PLACEHOLDER), found.count(VIDEO_PLACEHOLDER))
    if not found and tags == "optional":
        return tuple(exchanges), (*images, *chain.from_iterable(videos))
    if counts != (len(images), len(videos)):
        told = f"the questions hold {counts[0]} <image> and {counts[1]} <video>, the record names {len(images)} images"
        raise RecordError("placeholders", f"{told} and {len(videos)} videos; one tag for each file", "conversations")
    if found != tags_in(questions[0]):
        told = "a later question shows another picture; only the first question's pictures can be kept in their place"
        raise RecordError("late_placeholder", told, "conversations")
    waiting_images, waiting_videos = iter(images), iter(videos)
    frames: list[Frame] = []
    first = questions[0]
    for tag in found:
        frames += [next(waiting_images)] if tag == IMAGE_PLACEHOLDER else next(waiting_videos)
    for video in videos:
        first = first.replace(VIDEO_PLACEHOLDER, IMAGE_PLACEHOLDER * len(video), 1)
    return ((first, exchanges[0][1]), *exchanges[1:]), tuple(frames)


def tags_in(question: str) -> list[str]:
    """The `<image>` and `<video>` of a question in the order in which they stand there."""
    return _TAG.findall(question)


def make_turns(
    exchanges: Iterable[tuple[str, str]], rules: TurnRules, size: tuple[int, int] | None
) -> tuple[Turn, ...]:
    """One turn per exchange, its kind seen from the answer. `size` (height, width) is that of the image with places."""
    return tuple(make_turn(question, answer, rules, size) for question, answer in exchanges)


def make_turn(
    question: str, answer: str, rules: TurnRules, size: tuple[int, int] | None, options: Sequence[str] = ()
) -> Turn:
    """A turn of kind choice, yes_no, point, points, box or text. `options` are given where the question lists none."""
    turn = Turn(question, answer, rules.family, rules.task, "text")
    texts = tuple(options) or (listed_options(question) if rules.choices != "ignored" else ())
    if texts:
        found = matched(answer, texts, required=rules.choices == "required" or bool(options))
        if found is not None:
            return replace(turn, answer=found[0], options=found[1], kind="choice")
    elif rules.choices == "required":
        raise RecordError("no_options", f"no options in {question[-120:]!r}", "conversations")
    if answer.strip(" .!").lower() in ("yes", "no"):
        return replace(turn, kind="yes_no")
    if rules.coordinates is None or size is None:
        return turn
    places: list[Place] = []
    asked = with_places(question, rules.coordinates, size, places)
    replied = with_places(answer, rules.coordinates, size, places)
    if not places:
        return turn
    kind = place_kind(replied, places)
    task = rules.task if kind is None else "grounding"
    return replace(
        turn, question=without_range(asked), answer=replied, kind=kind or "text", places=tuple(places), task=task
    )
