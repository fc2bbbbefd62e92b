"""The plug-in of lmms-eval against a stand-in of its two modules, with the fields and calls of version 0.7.3.

lmms-eval itself is no dependency of the tests; where it is installed, the real registry is asked as well.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gemvlm.evaluation import lmms_eval_model
from gemvlm.evaluation.lmms_eval_model import generate, read_messages
from gemvlm.inference import GemPipeline, load


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class Lmms:
    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.cache_hook: Any = SimpleNamespace(add_partial=lambda *words: CACHED.append(words))
        self.task_dict: dict = {}


CACHED: list[tuple] = []


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`lmms_eval.api.model.lmms` and `lmms_eval.models.registry_v2.ModelManifest`."""
    for name, fields in {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }.items():
        module = ModuleType(name)
        module.__dict__.update(fields)
        monkeypatch.setitem(sys.modules, name, module)
    lmms_eval_model._model_class.cache_clear()
    yield
    lmms_eval_model._model_class.cache_clear()


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8))


def request(messages: list, options: dict, document: int = 0) -> SimpleNamespace:
    return SimpleNamespace(args=("context", lambda doc: messages, options, document, "task", "test"))


def said(*parts: dict) -> list:
    return [{"role": "user", "content": list(parts)}]


QUESTION = said({"type": "image", "url": PICTURE}, {"type": "text", "text": "What is on the table?"})


def test_the_manifest_names_a_chat_model_that_is_found_by_its_path(stand_in: None) -> None:
    found = lmms_eval_model.manifest()
    module, name = found.chat_class_path.rsplit(".", 1)
    model = getattr(importlib.import_module(module), name)
    assert found.model_id == "gemvlm" and issubclass(model, Lmms) and model.is_simple is False
    with pytest.raises(AttributeError):
        _ = lmms_eval_model.Other


def test_replies_are_those_of_the_checkpoint_in_the_order_of_the_requests(stand_in: None) -> None:
    model = lmms_eval_model.GemLmms(pretrained="nano", device="cpu", batch_size="2")
    model.task_dict = {"task": {"test": [{"id": 0}, {"id": 1}]}}
    blank = said({"type": "image", "url": Image.new("RGB", (64, 64))}, {"type": "text", "text": "Describe the scene."})
    requests = [
        request(QUESTION, {"max_new_tokens": 8, "until": ["\n\n"]}),
        request(blank, {"max_new_tokens": 12, "temperature": 0}, 1),
        request(QUESTION, {"max_new_tokens": 8, "do_sample": False, "temperature": 0.7}),
    ]
    replies = model.generate_until(requests)
    pipeline = load("nano", "cpu")
    assert replies[0] == replies[2] == pipeline.ask(PICTURE, "What is on the table?", max_new_tokens=8).text
    blank_picture = np.zeros((64, 64, 3), np.uint8)
    assert replies[1] == pipeline.ask(blank_picture, "Describe the scene.", max_new_tokens=12).text
    assert [words[0] for words in CACHED[-3:]] == ["generate_until"] * 3 and CACHED[-1][2] == replies[2]
    with pytest.raises(NotImplementedError, match="likelihoods"):
        model.loglikelihood([])
    with pytest.raises(ValueError, match="'tokens'"):
        lmms_eval_model.GemLmms(pretrained="nano", tokens=3)


def test_messages_become_one_prompt_with_pictures_where_they_stand() -> None:
    video = {"type": "video", "url": [PICTURE] * 10}
    messages = [
        {"role": "system", "content": "Be brief."},
        *said({"type": "text", "text": "First <image>:"}, {"type": "image", "url": PICTURE}, video),
    ]
    pictures, prompt = read_messages(messages, frames=4)
    assert prompt == "Be brief.\nFirst :\n<image>\n<image><image><image><image>"
    assert len(pictures) == 5 and pictures[0].shape == (96, 96, 3)


def test_what_can_not_be_shown_is_an_error_in_words() -> None:
    with pytest.raises(ValueError, match="holds audio"):
        read_messages(said({"type": "audio", "url": "a.wav"}), 4)
    with pytest.raises(ValueError, match="num_fewshot=0"):
        read_messages([{"role": "assistant", "content": "yes"}], 4)
    with pytest.raises(ValueError, match="part of a video"):
        read_messages(said({"type": "video", "url": "a.mp4", "start_time": 1.0}), 4)


def test_a_reply_ends_before_what_the_task_stops_at() -> None:
    class Echo(GemPipeline):
        def __init__(self) -> None:
            pass

        def ask_batch(self, requests: list, **options: Any) -> list:
            return [SimpleNamespace(text=f"{text} | {options['temperature']} | end") for _, text in requests]

    asked = [(([], "a"), {"until": " |"}), (([], "b"), {"until": ["x", ""], "temperature": 0.5})]
    assert generate(Echo(), asked, 8) == ["a", "b | 0.5 | end"]


def test_the_real_registry_takes_the_manifest() -> None:
    registry = pytest.importorskip("lmms_eval.models.registry_v2", reason="lmms-eval is not installed")
    found = registry.ModelRegistryV2()
    found.register_manifest(lmms_eval_model.manifest())
    assert found.get_model_class("gemvlm").__name__ == "GemLmms"
