"""A reply in pieces is the reply."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from gemvlm.data.tokenizer import SpecialIds
from gemvlm.inference import GemPipeline
from gemvlm.inference.reply_text import UNFINISHED, ReplyText

QUESTION = "Which is closer, the red mug or the blue bowl?"


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_joined_pieces_are_the_answer(pipeline: GemPipeline, image: np.ndarray, temperature: float) -> None:
    for seed in range(4):
        options = {"max_new_tokens": 24, "temperature": temperature, "seed": seed}
        whole = pipeline.ask(image, QUESTION, **options)  # type: ignore[arg-type]
        stream = pipeline.ask_stream(image, QUESTION, **options)  # type: ignore[arg-type]
        pieces = list(stream)
        assert "".join(pieces) == whole.text
        assert stream.finished == whole.finished


def _saying(monkeypatch: pytest.MonkeyPatch, pipeline: GemPipeline, ids: list[int]) -> list[int]:
    """The model says these tokens and ends; returns those that were asked for so far."""
    asked: list[int] = []

    def next_tokens(*_: object, **__: object) -> Iterator[torch.Tensor]:
        for token in [*ids, SpecialIds.of(pipeline.tokenizer).turn_end]:
            asked.append(token)
            yield torch.tensor([token])

    monkeypatch.setattr(pipeline.gem.backbone, "next_tokens", next_tokens)
    return asked


def test_half_a_character_waits_for_its_rest(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "  a mug – 茶 🫖 , the end \n"
    ids = pipeline.tokenizer.encode(text, add_special_tokens=False)
    assert any(UNFINISHED in pipeline.tokenizer.decode(ids[:n]) for n in range(len(ids)))
    _saying(monkeypatch, pipeline, ids)
    stream = pipeline.ask_stream(image, QUESTION)
    pieces = list(stream)
    assert "".join(pieces) == text.strip()
    assert len(pieces) > 5 and not any(UNFINISHED in piece for piece in pieces)
    assert stream.finished and stream.tokens == len(ids)


def test_bytes_that_are_no_character_are_said_at_the_end(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = pipeline.tokenizer.encode("tea 茶", add_special_tokens=False)[:-1]
    _saying(monkeypatch, pipeline, ids)
    assert "".join(pipeline.ask_stream(image, QUESTION)) == pipeline.tokenizer.decode(ids).strip()


def test_characters_that_never_end_with_a_token_stay_whole(pipeline: GemPipeline) -> None:
    ids = pipeline.tokenizer.encode("茶茶茶", add_special_tokens=False)
    reply = ReplyText(pipeline.tokenizer)
    pieces = [reply.add(token) for token in ids]
    assert "".join(pieces) + reply.rest() == reply.text == "茶茶茶"


def test_nothing_is_computed_before_it_is_asked_for_nor_after_closing(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _saying(monkeypatch, pipeline, pipeline.tokenizer.encode("red mug bowl closer", add_special_tokens=False))
    stream = pipeline.ask_stream(image, QUESTION)
    assert asked == []
    next(stream)
    assert len(asked) == 1
    stream.close()
    assert list(stream) == [] and len(asked) == 1 and not stream.finished


def test_a_stream_leaves_gradients_as_they_were(pipeline: GemPipeline, image: np.ndarray) -> None:
    stream = pipeline.ask_stream(image, QUESTION, max_new_tokens=3)
    for _ in stream:
        assert torch.is_grad_enabled()


def test_bad_input_is_refused_before_the_first_piece(pipeline: GemPipeline) -> None:
    with pytest.raises(ValueError, match="no such image file"):
        pipeline.ask_stream("nowhere.png", QUESTION)
