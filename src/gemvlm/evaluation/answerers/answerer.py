"""Who answers: items in, one reply for each out, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Protocol, runtime_checkable

import torch

from gemvlm.evaluation.benchmark import Benchmark, Convention, Item

IMAGE_MARK = "<image>"


@dataclass(frozen=True)
class Reply:
    """What was said. With a `failure` nothing was: the item stays, scores zero and is counted under that reason.

    `frames` says how many pictures were shown.
    """

    text: str = ""
    failure: str | None = None
    frames: int = 0


@runtime_checkable
class Answerer(Protocol):
    """A model, or a baseline in its place. `describe` is plain JSON that says exactly who answered and how.

    Items come in batches of `batch_size`. An answer may depend on nothing but its item: not on its neighbours, nor on
    the time, nor on what was asked before.
    """

    name: str
    convention: Convention
    batch_size: int

    def describe(self) -> Mapping[str, Any]: ...

    def meet(self, benchmark: Benchmark, items: Sequence[Item]) -> None:
        """Called once before the first item; baselines look at the benchmark here."""
        ...

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        """One reply for each item, in order. What is wrong with one item is that item's `failure`, never an error."""
        ...


def answer_in_halves(items: Sequence[Item], ask: Callable[[Sequence[Item]], list[Reply]]) -> list[Reply]:
    """`ask`s all items at once; if it can't, each half, down to the item that is to blame, whose reply is a failure.

    Only what an item can cause is caught (bad media, too long for the model, too large for the memory).
    """
    try:
        return ask(items)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        if len(items) == 1:
            return [Reply(failure=f"{type(error).__name__}: {error}")]
    middle = len(items) // 2
    return answer_in_halves(items[:middle], ask) + answer_in_halves(items[middle:], ask)


def weights_digest(model: torch.nn.Module) -> str:
    """Tells other weights of the same name: a hash of each parameter's name, shape and first numbers."""
    digest = blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        few = parameter.detach().flatten()[:64].float().cpu().numpy()
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + few.tobytes())
    return digest.hexdigest()


def without_media(item: Item) -> Item:
    """The same words without any image."""
    return replace(item, media=(), prompt=item.prompt.replace(IMAGE_MARK, ""))


def marked_per_frame(prompt: str, frames: Sequence[int]) -> str:
    """`<image>` once for every frame in place of once for every medium; a prompt without marks stays as it is.

    ValueError if marks and media differ in number.
    """
    pieces = prompt.split(IMAGE_MARK)
    if len(pieces) == 1:
        return prompt
    if len(pieces) - 1 != len(frames):
        raise ValueError(f"the prompt has {len(pieces) - 1} {IMAGE_MARK} for {len(frames)} media")
    marks = [IMAGE_MARK * count for count in frames]
    return pieces[0] + "".join(mark + piece for mark, piece in zip(marks, pieces[1:], strict=True))
