"""Any image-text model of the Hugging Face hub answers, through its own processor and chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from gemvlm.evaluation.answerers.answerer import (
    IMAGE_MARK,
    Reply,
    answer_in_halves,
    marked_per_frame,
    weights_digest,
)
from gemvlm.evaluation.answerers.media import frames_of, shown
from gemvlm.evaluation.benchmark import Benchmark, Convention, Item
from gemvlm.runtime import default_device

CONVENTIONS: dict[str, Convention] = {
    "qwen3_vl": Convention("thousand"),
    "qwen3_vl_moe": Convention("thousand"),
    "qwen3_5": Convention("thousand"),
    "qwen2_vl": Convention("thousand"),
    "qwen2_5_vl": Convention("pixel"),
    "internvl": Convention("thousand"),
    "molmo": Convention("hundred"),
}
"""What families are trained to write, by `model_type`. Qwen2.5-VL's pixels are those of the picture resized to
multiples of 28: within 14 pixels of the picture as given, unless that exceeds the model's pixel budget."""


class HuggingFaceAnswerer:
    """Greedy answers of an `AutoModelForImageTextToText`. A video is shown as images, like everywhere here.

    `convention` None takes what the family is known to write; ValueError if the family is unknown, rather than a guess.
    """

    def __init__(
        self,
        place: str,
        name: str,
        convention: Convention | None = None,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 4,
    ) -> None:
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

        self.name, self.batch_size = name, batch_size
        try:
            family = AutoConfig.from_pretrained(place, revision=revision).model_type
            if convention is None and family not in CONVENTIONS:
                raise ValueError(
                    f"how {family!r} models write coordinates is not known here; say it: "
                    "?convention=thousand, hundred, fraction or pixel (-yx where y comes first)"
                )
            self.convention = convention or CONVENTIONS[family]
            self._processor = AutoProcessor.from_pretrained(place, revision=revision)
            model = AutoModelForImageTextToText.from_pretrained(place, revision=revision, dtype=dtype)
        except (OSError, ImportError, KeyError) as error:
            raise ValueError(f"{place}: not an image-text model that can be loaded ({error})") from error
        if not getattr(self._processor, "chat_template", None):
            raise ValueError(f"{place}: its processor has no chat template, so how to ask it is not known")
        self._model: Any = model.eval()
        self._model.to(default_device(device))
        self._processor.tokenizer.padding_side = "left"
        if self._processor.tokenizer.pad_token is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token
        self._identity = {
            "kind": "hugging face",
            "place": place,
            "revision": revision or str(getattr(model.config, "_commit_hash", None) or ""),
            "model_type": family,
            "weights": weights_digest(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "decoding": "greedy",
        }

    def describe(self) -> Mapping[str, Any]:
        return self._identity

    def meet(self, benchmark: Benchmark, items: Sequence[Item]) -> None:
        pass

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        """Items with and without images are asked apart: not every processor takes both in one batch."""
        replies: list[Reply] = [Reply()] * len(items)
        for seen in (True, False):
            places = [place for place, item in enumerate(items) if bool(item.media) == seen]
            if places:
                found = answer_in_halves([items[place] for place in places], self._answer)
                for place, reply in zip(places, found, strict=True):
                    replies[place] = reply
        return replies

    @torch.no_grad()
    def _answer(self, items: Sequence[Item]) -> list[Reply]:
        pictures = [frames_of(item) for item in items]
        texts = [
            self._processor.apply_chat_template(
                _messages(item, [len(frames) for frames in own]), add_generation_prompt=True, tokenize=False
            )
            for item, own in zip(items, pictures, strict=True)
        ]
        images = [[Image.fromarray(picture) for frames in own for picture in frames] for own in pictures]
        given: dict[str, Any] = {"images": images} if any(images) else {}
        inputs = self._processor(text=texts, padding=True, return_tensors="pt", **given)
        inputs = inputs.to(self._model.device, dtype=self._model.dtype)
        limit = max(item.max_new_tokens for item in items)
        ids = self._model.generate(
            **inputs, max_new_tokens=limit, do_sample=False, pad_token_id=self._processor.tokenizer.pad_token_id
        )
        said = self._processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [Reply(text.strip(), frames=shown(own)) for text, own in zip(said, pictures, strict=True)]


def _messages(item: Item, frames: Sequence[int]) -> list[dict[str, Any]]:
    """The item as a conversation, with images where its marks stand, or first."""
    text = item.prompt if IMAGE_MARK in item.prompt else IMAGE_MARK * len(frames) + item.prompt
    content: list[dict[str, str]] = []
    for index, piece in enumerate(marked_per_frame(text, frames).split(IMAGE_MARK)):
        content += [{"type": "image"}] if index else []
        content += [{"type": "text", "text": piece}] if piece else []
    system = [{"role": "system", "content": [{"type": "text", "text": item.system}]}] if item.system else []
    return [*system, {"role": "user", "content": content}]
