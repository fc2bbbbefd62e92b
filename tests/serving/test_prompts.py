"""Conversations over the wire become prompts, or are refused with the message that is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydantic", reason="the server needs gemvlm[serve]")

from gemvlm.data.collate import Prompt
from gemvlm.sample import Frame
from gemvlm.serving.limits import Limits, Refusal
from gemvlm.serving.messages import ChatRequest
from gemvlm.serving.prompts import prompt_of


def frame(url: str, field: str) -> Frame:
    return Frame(np.full((2, 2, 3), int(url), np.uint8))


def prompt(*messages: tuple[str, Any]) -> Prompt:
    request = ChatRequest(model="m", messages=[{"role": role, "content": content} for role, content in messages])
    return prompt_of(request.messages, Limits(images=3, messages=6, text_characters=50), frame)


def image(number: int) -> dict:
    return {"type": "image_url", "image_url": {"url": str(number)}}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def test_pictures_keep_their_places() -> None:
    found = prompt(("user", [text("Here "), image(1), text(" and "), image(2), text(" differ?")]))
    assert found.question == "Here <image> and <image> differ?"
    assert [int(each.image[0, 0, 0]) for each in found.frames] == [1, 2]
    assert (found.history, found.system) == ((), None)


def test_parts_of_text_in_a_row_are_lines() -> None:
    assert prompt(("user", [image(1), text("What is this?"), text("Be brief.")])).question == (
        "<image>What is this?\nBe brief."
    )


def test_turns_and_system_text() -> None:
    found = prompt(
        ("developer", "Be brief."), ("user", [image(7)]), ("user", "What?"), ("assistant", "A mug."), ("user", "Where?")
    )
    assert found.system == "Be brief."
    assert found.history == (("<image>\nWhat?", "A mug."),)
    assert found.question == "Where?"


def test_pictures_of_later_questions() -> None:
    found = prompt(
        ("user", [image(1), text("What?")]), ("assistant", [text("A mug.")]), ("user", [text("And here?"), image(2)])
    )
    assert found.history == (("<image>What?", "A mug."),)
    assert found.question == "And here?<image>"
    assert [int(each.image[0, 0, 0]) for each in found.frames] == [1, 2]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([("assistant", "Hi")], "ends with the user"),
        ([("user", "Hi"), ("assistant", "Hi")], "ends with the user"),
        ([("system", "Hi")], "ends with the user"),
        ([("user", "Hi"), ("system", "S"), ("user", "Hi")], "messages.1.content: system text"),
        ([("user", " ")], "neither words nor a picture"),
        ([("user", [])], "neither words nor a picture"),
        ([("user", "<video>")], "<video> stands for a picture"),
        ([("user", "\ud800")], "messages.0.content: a character is cut in half"),
        (
            [("user", "a"), ("assistant", [text("b"), image(1)]), ("user", "c")],
            "messages.1.content.1: only the user shows pictures",
        ),
        ([("system", [image(1)]), ("user", "a")], "messages.0.content.0: only the user shows pictures"),
        ([("user", [image(1)] * 4)], "4 pictures are more than 3"),
        ([("user", [image(1)] * 3), ("assistant", "b"), ("user", [image(2)])], "4 pictures are more than 3"),
        ([("user", "x" * 51)], "51 characters are more than 50"),
        ([("user", "a")] * 7, "7 messages are more than 6"),
    ],
)
def test_what_is_no_conversation(messages: list, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        prompt(*messages)
