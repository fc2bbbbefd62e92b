"""Our checkpoints as a model of lmms-eval, so that its tasks run on them.

    lmms-eval --model gemvlm --model_args pretrained=RUN/final --tasks vsibench --batch_size 16

lmms-eval finds `manifest` by the entry point `lmms_eval.models` of this package and asks for the class by name; nothing
of it is imported before. A chat model: a task's messages become one prompt with its images where they stand. What
places a task asks for is the task's own wording; replies are passed on as they are.

Read at version 0.7.3 (EvolvingLMMs-Lab/lmms-eval): `models/registry_v2.py` (`ModelManifest`, entry points),
`api/model.py` (`lmms`), `models/chat/huggingface.py` (requests: context, doc_to_messages, generation arguments,
document, task, split).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gemvlm.data.conversation import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from gemvlm.data.video import evenly
from gemvlm.evaluation.answerers.media import show
from gemvlm.evaluation.benchmark import Media
from gemvlm.inference import GemPipeline, load
from gemvlm.inference.images import read_image
from gemvlm.runtime import detect

CLASS = "GemLmms"
MAX_NEW_TOKENS = 128
"""Where a task says nothing."""


def manifest() -> Any:
    """What the entry point gives to lmms-eval: the model's name and where its class is found."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="gemvlm", chat_class_path=f"{__name__}.{CLASS}")


def __getattr__(name: str) -> Any:
    if name == CLASS:
        return _model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _model_class() -> type:
    """The class, made once lmms-eval asks for it: its base is theirs."""
    try:
        from lmms_eval.api.model import lmms
    except ImportError as error:
        raise ImportError(f"lmms-eval is needed to run its tasks: pip install lmms-eval ({error})") from error

    class GemLmms(lmms):
        """`pretrained` is a checkpoint folder or the name of a shipped one; a video is shown as `max_num_frames`."""

        is_simple = False

        def __init__(
            self,
            pretrained: str = "nano",
            device: str | None = None,
            batch_size: int | str = 16,
            max_num_frames: int = 32,
            **unknown: Any,
        ) -> None:
            super().__init__()
            if unknown:
                raise ValueError(f"gemvlm: model arguments {sorted(unknown)} are unknown; there are pretrained, "
                                 "device, batch_size and max_num_frames")  # fmt: skip
            runtime = detect(device)
            self._rank, self._world_size = runtime.rank, runtime.world
            self.pipeline = load(pretrained, str(runtime.device))
            self.batch_size = int(batch_size)
            self.max_num_frames = max_num_frames

        @property
        def device(self) -> Any:
            return self.pipeline.device

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """A reply to each request, in their order."""
            asked = []
            for request in requests:
                _, to_messages, options, number, task, split = request.args
                messages = to_messages(self.task_dict[task][split][number])
                asked.append((read_messages(messages, self.max_num_frames), dict(options)))
            replies = generate(self.pipeline, asked, self.batch_size)
            for request, reply in zip(requests, replies, strict=True):
                self.cache_hook.add_partial("generate_until", (request.args[0], request.args[2]), reply)
            return replies

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
            raise NotImplementedError("gemvlm: tasks of several rounds are not supported")

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            raise NotImplementedError("gemvlm: tasks that compare likelihoods are not supported")

    return GemLmms


Asked = tuple[list[np.ndarray], str]
"""Pictures, and the prompt with a mark where each stands."""


def read_messages(messages: Sequence[Mapping[str, Any]], frames: int) -> Asked:
    """The messages of one request as pictures and a prompt. ValueError for sound, and for turns of an assistant.

    A system's text stands first. Marks that a task's text holds of its own are taken out: its pictures come as parts.
    """
    pictures: list[np.ndarray] = []
    pieces: list[str] = []
    for message in messages:
        if message["role"] not in ("system", "user"):
            raise ValueError(f"gemvlm: a message of the {message['role']}; run the task with num_fewshot=0")
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                pieces.append(part["text"].replace(IMAGE_PLACEHOLDER, "").replace(VIDEO_PLACEHOLDER, "").strip())
            elif part["type"] in ("image", "video"):
                found = [_picture(part["url"])] if part["type"] == "image" else _frames(part, frames)
                pictures += found
                pieces.append(IMAGE_PLACEHOLDER * len(found))
            else:
                raise ValueError(f"gemvlm: a message holds {part['type']}; pictures, videos and text are read")
    return pictures, "\n".join(piece for piece in pieces if piece)


def generate(pipeline: GemPipeline, asked: Sequence[tuple[Asked, Mapping[str, Any]]], batch_size: int) -> list[str]:
    """Replies in order; requests of one length and temperature share batches. A reply ends before any `until`."""
    replies = [""] * len(asked)
    groups: dict[tuple[int, float], list[int]] = {}
    for place, (_, options) in enumerate(asked):
        temperature = float(options.get("temperature") or 0.0) if options.get("do_sample", True) else 0.0
        groups.setdefault((int(options.get("max_new_tokens") or MAX_NEW_TOKENS), temperature), []).append(place)
    for (limit, temperature), places in groups.items():
        for start in range(0, len(places), batch_size):
            part = places[start : start + batch_size]
            answers = pipeline.ask_batch(
                [asked[place][0] for place in part], max_new_tokens=limit, temperature=temperature
            )
            for place, answer in zip(part, answers, strict=True):
                replies[place] = _cut(answer.text, asked[place][1].get("until"))
    return replies


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    for end in [until] if isinstance(until, str) else until or ():
        text = text.split(end)[0] if end else text
    return text


def _picture(image: Any) -> np.ndarray:
    return read_image(image.convert("RGB") if isinstance(image, Image.Image) else image)


def _frames(part: Mapping[str, Any], frames: int) -> list[np.ndarray]:
    """A video as a file, or as a sequence of frames, of which `frames` at equal distances are shown."""
    if part.get("start_time") is not None or part.get("end_time") is not None:
        raise ValueError("gemvlm: a task shows a part of a video; cut it before")
    video = part["url"]
    if isinstance(video, str | Path):
        return show(Media(Path(video), "video"), frames)
    return [_picture(video[place]) for place in evenly(len(video), frames)]
