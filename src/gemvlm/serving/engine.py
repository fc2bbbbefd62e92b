"""What a server does with a pipeline: requests become jobs of one queue, and a batch of jobs becomes answers.

Streams and whole answers are one thing here: the model takes one step for every conversation of a batch, each hears its
own pieces, ends by its own rule, and leaves when nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from gemvlm.data.collate import Collator, Prompt
from gemvlm.data.frames import ImageConfig
from gemvlm.data.tokenizer import SpecialIds
from gemvlm.inference import GemPipeline
from gemvlm.inference.locate import LocateRequest
from gemvlm.inference.reply_text import ReplyText
from gemvlm.sample import Frame
from gemvlm.serving.limits import Limits, Refusal
from gemvlm.serving.queue import Job, WorkQueue

Picture = UInt8[np.ndarray, "H W 3"]
Kind = Literal["chat", "depth", "locate"]
PASSES_A_TURN = 240
"""Passes of the generator over single pictures, after which other batches have their turn."""


@dataclass(frozen=True)
class Key:
    """What requests must have in common to share a batch."""

    kind: Kind
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Conversation:
    """A prompt that was found to fit, its length in tokens, and the most tokens that its answer may have."""

    prompt: Prompt
    tokens: int
    new_tokens: int


@dataclass(frozen=True)
class Reply:
    """An answer with its counts. `finished` is False where it was cut off."""

    text: str
    prompt_tokens: int
    new_tokens: int
    finished: bool


class Engine:
    """A pipeline behind a queue. `prepare_*` may run in any thread; the model itself is touched by one."""

    def __init__(
        self,
        pipeline: GemPipeline,
        limits: Limits,
        *,
        batch_size: int = 8,
        waiting: int = 64,
        observe: Callable[[Hashable, int, float], None] | None = None,
    ) -> None:
        self.pipeline, self.limits = pipeline, limits
        pipeline.gem.eval()
        self._images = ImageConfig(**pipeline.card.image)
        self._collate = Collator(pipeline.tokenizer, pipeline.coordinates, self._images)
        ids = SpecialIds.of(pipeline.tokenizer)
        self._ends = (ids.turn_end, ids.end_of_text)
        self.queue = WorkQueue(
            self._work, batch_size=batch_size, waiting=waiting, patience_s=limits.seconds, observe=observe
        )

    def prepare_chat(self, prompt: Prompt, new_tokens: int | None) -> Conversation:
        """Counts the tokens; Refusal if the model can't hold them. None asks for as many as there is room for."""
        try:
            tokens = len(self._collate.encode_prompt(prompt).input_ids)
        except ValueError as error:
            raise Refusal(str(error), code="invalid_prompt", param="messages") from None
        room = self.pipeline.context - tokens
        wanted = min(self.limits.new_tokens, max(room, 1)) if new_tokens is None else new_tokens
        if wanted > room:
            raise Refusal(
                f"the conversation has {tokens} tokens and asks for {wanted} more, but the model holds "
                f"{self.pipeline.context}; shorten it, send fewer images, or lower max_tokens",
                code="context_length_exceeded",
                param="messages",
            )
        return Conversation(prompt, tokens, wanted)

    def check_shape(self, picture: Picture, param: str | None = None) -> tuple[int, int]:
        """(height, width) at which the model reads the picture. Refusal if it is too long and thin."""
        try:
            return self._images.resized(*picture.shape[:2])
        except ValueError as error:
            raise Refusal(str(error), code="invalid_image", param=param) from None

    def frame(self, picture: Picture) -> Frame:
        """The picture at the size at which the model reads it, if that loses nothing: less memory while it waits."""
        height, width = self.check_shape(picture)
        stays = self._images.resized(height, width) == (height, width)
        if stays and (height, width) != picture.shape[:2]:
            resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
            picture = np.asarray(resized)
        return Frame(picture)

    def chat(
        self,
        conversation: Conversation,
        temperature: float = 0.0,
        seed: int = 0,
        on_piece: Callable[[str], None] | None = None,
    ) -> Job:
        """A job whose result is a `Reply`. Words drawn by chance must not depend on neighbours: those go alone."""
        key = Key("chat", (("temperature", temperature), ("seed", seed if temperature else 0)))
        weight = sum(frame.image.nbytes for frame in conversation.prompt.frames)
        return self.queue.submit(key, conversation, weight=weight, on_piece=on_piece, alone=temperature > 0)

    def depth(self, picture: Picture, **settings: Any) -> Job:
        """A job whose result is a `DepthPrediction`; `settings` are those of `GemPipeline.depth_batch`."""
        return self.queue.submit(Key("depth", tuple(sorted(settings.items()))), picture, weight=picture.nbytes)

    def locate(self, request: LocateRequest, weight: int, **settings: Any) -> Job:
        """A job whose result is a `Location`; `settings` are those of `GemPipeline.locate_batch`."""
        return self.queue.submit(Key("locate", tuple(sorted(settings.items()))), request, weight=weight)

    def _work(self, key: Hashable, jobs: Sequence[Job]) -> Generator[None, None, None]:
        assert isinstance(key, Key)
        settings = dict(key.settings)
        if key.kind == "chat":
            return self._chat(jobs, **settings)
        method = self.pipeline.depth_batch if key.kind == "depth" else self.pipeline.locate_batch
        return _in_turns(method, jobs, settings)

    def _chat(self, jobs: Sequence[Job], temperature: float, seed: int) -> Generator[None, None, None]:
        asked: list[Conversation] = [job.payload for job in jobs]
        device = self.pipeline.device
        texts = [ReplyText(self.pipeline.tokenizer) for _ in jobs]
        counts = [0] * len(jobs)
        steps = self.pipeline.gem.backbone.next_tokens(
            self._collate.prompts([each.prompt for each in asked]).to(device),
            max(each.new_tokens for each in asked),
            temperature,
            torch.Generator(device).manual_seed(seed),
        )
        for tokens in steps:
            for row, (job, token) in enumerate(zip(jobs, tokens.tolist(), strict=True)):
                if job.over:
                    continue
                counts[row] += 1
                ended = token in self._ends
                piece = texts[row].rest() if ended else texts[row].add(token)
                cut = not ended and counts[row] == asked[row].new_tokens
                piece += texts[row].rest() if cut else ""
                if piece:
                    job.piece(piece)
                if ended or cut:
                    job.finish(Reply(texts[row].text, asked[row].tokens, counts[row], finished=ended))
            if all(job.over for job in jobs):
                return
            yield


def _in_turns(
    method: Callable[..., Sequence[Any]], jobs: Sequence[Job], settings: dict[str, Any]
) -> Generator[None, None, None]:
    """A method of the pipeline that paints: so many requests at once as make a turn that others can wait for."""
    passes = settings.get("steps", 1) * settings.get("ensemble", 1) * (1 if settings.get("guidance", 1) == 1 else 2)
    size = max(1, PASSES_A_TURN // passes)
    for start in range(0, len(jobs), size):
        waiting = [job for job in jobs[start : start + size] if not job.over]
        if waiting:
            for job, result in zip(waiting, method([job.payload for job in waiting], **settings), strict=True):
                job.finish(result)
        yield
