# ruff: noqa: E402 - what a test needs may be absent
"""Conversations of several turns, pictures in any of them: the official client, a live server, the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs gemvlm[serve]")
pytest.importorskip("prometheus_client", reason="the server needs gemvlm[serve]")
openai = pytest.importorskip("openai", reason="the official client is a development tool")

from gemvlm.inference import GemPipeline
from gemvlm.inference.examples import examples
from gemvlm.inference.pipeline import Request
from gemvlm.serving.limits import Limits
from gemvlm.serving.service import ServerConfig

WORDS = ("What colour is the arch?", "Which image shows a cone?", "Describe the scene.")
TOKENS = 24


@pytest.fixture(scope="module")
def client(nano: GemPipeline, running: Callable[..., Any]) -> Iterator[openai.OpenAI]:
    limits = Limits(images=3, image_pixels=50_000)
    with running(nano, ServerConfig("nano", limits)) as (url, _, _listening):
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [example.image() for example in examples()]


@pytest.fixture(scope="module")
def shown(pictures: list[np.ndarray], data_url: Callable[..., str]) -> list[dict]:
    """The three pictures as parts of messages."""
    return [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures]


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def ask(client: openai.OpenAI, messages: list[dict]) -> str:
    reply = client.chat.completions.create(model="nano", messages=messages, max_tokens=TOKENS)
    return reply.choices[0].message.content


def test_each_turn_brings_its_picture_and_says_what_the_pipeline_says(
    client: openai.OpenAI, nano: GemPipeline, pictures: list[np.ndarray], shown: list[dict]
) -> None:
    """Three questions, each about a picture of its own, with the model's replies in between; and the last streamed."""
    messages: list[dict] = []
    history: list[tuple[str, str]] = []
    for number, words in enumerate(WORDS):
        messages.append({"role": "user", "content": [shown[number], text(words)]})
        said = ask(client, messages)
        question = f"<image>{words}"
        expected = nano.ask(pictures[: number + 1], question, history=history, max_new_tokens=TOKENS)
        assert said == expected.text
        if number < len(WORDS) - 1:
            messages.append({"role": "assistant", "content": said})
            history.append((question, said))
    pieces = client.chat.completions.create(model="nano", messages=messages, max_tokens=TOKENS, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == said


def test_where_a_picture_stands_matters(
    client: openai.OpenAI, nano: GemPipeline, pictures: list[np.ndarray], shown: list[dict]
) -> None:
    """A picture that comes with the second question is read there, not before the first."""
    begun = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello. Show me something."}]
    later = [*begun, {"role": "user", "content": [text("Look: "), shown[1], text(WORDS[2])]}]
    history = [("Hello", "Hello. Show me something.")]
    asked = f"Look: <image>{WORDS[2]}"
    assert ask(client, later) == nano.ask(pictures[1], asked, history=history, max_new_tokens=TOKENS).text
    first = nano._prompts([Request(pictures[1], f"Look: {WORDS[2]}", history)])
    second = nano._prompts([Request(pictures[1], asked, history)])
    assert int(first.lengths.sum()) >= int(second.lengths.sum()) and int(first.spans[0, 0]) < int(second.spans[0, 0])


def test_limits_hold_over_the_whole_conversation(
    client: openai.OpenAI, shown: list[dict], data_url: Callable[..., str]
) -> None:
    turn = [{"role": "user", "content": [shown[0], shown[1]]}, {"role": "assistant", "content": "yes"}]
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, [*turn, {"role": "user", "content": [shown[0], shown[1]]}])
    assert (caught.value.status_code, caught.value.code) == (413, "too_many_images")
    large = {"type": "image_url", "image_url": {"url": data_url(np.zeros((300, 300, 3), np.uint8))}}
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, [*turn, {"role": "user", "content": [large, text("?")]}])
    assert (caught.value.status_code, caught.value.code) == (413, "image_too_large")
    assert caught.value.param == "messages.2.content.0"


def test_only_the_user_shows_pictures(client: openai.OpenAI, shown: list[dict]) -> None:
    told = [{"role": "user", "content": "Draw."}, {"role": "assistant", "content": [shown[0]]}]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, [*told, {"role": "user", "content": "Thanks"}])
    assert caught.value.code == "image_not_of_user"


def test_the_pipeline_counts_images_and_places(nano: GemPipeline, pictures: list[np.ndarray]) -> None:
    history = [("<image> What is this?", "a mug")]
    with pytest.raises(ValueError, match=r"2 <image>.* 1 frames"):
        nano.ask(pictures[:1], "<image> And this?", history=history)
    with pytest.raises(ValueError, match=r"1 <image>.* 2 frames"):
        nano.ask(pictures[:2], "And this?", history=history)
