"""A trained model that answers people: images in, words, places and depth out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers import PreTrainedTokenizerFast

from gemvlm.data.collate import Collator, Prompt, keyed
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.data.frames import ImageConfig
from gemvlm.depth_map import Encoding, target_size
from gemvlm.inference.answer import Answer, generate_replies
from gemvlm.inference.depth import DepthPrediction, decode_pictures
from gemvlm.inference.streaming import TextStream
from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.sample import Frame, Point, Sample

T = TypeVar("T")
ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray
"""A file, a PIL image, or a uint8 array (height, width, 3) in RGB."""


class GemPipeline:
    """A model with its tokenizer and conventions. Every method is deterministic; requests of one call share batches.

    `batch_size` bounds how many images or questions are worked on at once; it does not change answers at temperature 0.
    """

    def __init__(
        self, gem: Gem, tokenizer: PreTrainedTokenizerFast, card: CheckpointCard, batch_size: int = 32
    ) -> None:
        self.gem = gem
        self.tokenizer = tokenizer
        self.card = card
        self.batch_size = batch_size
        self.coordinates = CoordinateFormat(**card.coordinates)
        self._collate = Collator(tokenizer, self.coordinates, ImageConfig(**card.image))

    @property
    def device(self) -> torch.device:
        return next(self.gem.parameters()).device

    @property
    def encoding(self) -> Encoding:
        """How depth becomes the picture that the model paints."""
        return self.gem.config.encoding

    def ask(
        self,
        images: ImageLike | Sequence[ImageLike],
        question: str,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """The model's answer to a question about one image or several."""
        return self.ask_batch([(images, question)], max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)[
            0
        ]

    def ask_batch(
        self,
        requests: Sequence[tuple[ImageLike | Sequence[ImageLike], str]],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Answer]:
        """Answers to (images, question) requests. At temperature 0 the likeliest token is taken each time."""
        answers: list[Answer] = []
        with _evaluating(self.gem):
            for chunk in _chunks(list(requests), self.batch_size):
                prompts = self._collate.prompts([Prompt(_frames(images), question) for images, question in chunk])
                replies = generate_replies(
                    self.gem, self.tokenizer, prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
                )
                answers += [Answer.from_text(text, self.coordinates, finished) for text, finished in replies]
        return answers

    def ask_stream(
        self,
        images: ImageLike | Sequence[ImageLike],
        question: str,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> TextStream:
        """The text of `ask` in pieces, while it is made. Bad input is refused here, before the first piece is asked."""
        prompt = self._collate.prompts([Prompt(_frames(images), question)])
        return TextStream(
            self.gem, self.tokenizer, prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )

    def point(self, image: ImageLike, expression: str) -> Point | None:
        """Where the thing that `expression` names is ("red mug"); None if the reply holds no point."""
        name = expression.strip().rstrip(".").removeprefix("the ")
        points = self.ask(image, f"Point to the {name}.").points
        return points[0] if points else None

    def describe(self, image: ImageLike, *, max_new_tokens: int = 512) -> Answer:
        """Everything that the model sees, with its places."""
        return self.ask(image, "Describe the scene.", max_new_tokens=max_new_tokens)

    def depth(
        self,
        image: ImageLike,
        *,
        steps: int = 30,
        guidance: float = 1.0,
        seed: int = 0,
        ensemble: int = 1,
        as_image: bool = True,
    ) -> DepthPrediction:
        """The depth of one image; see `depth_batch`."""
        return self.depth_batch(
            [image], steps=steps, guidance=guidance, seed=seed, ensemble=ensemble, as_image=as_image
        )[0]

    def depth_batch(
        self,
        images: Sequence[ImageLike],
        *,
        steps: int = 30,
        guidance: float = 1.0,
        seed: int = 0,
        ensemble: int = 1,
        as_image: bool = True,
        unconditional: bool = False,
    ) -> list[DepthPrediction]:
        """The depth of each image, painted from the states of that image alone.

        Guidance 1 samples what the model believes; more exaggerates what the image says over what scenes are usually
        like, at twice the work. `ensemble` takes the median of several paintings. Depth has the image's size, or with
        `as_image` False the size at which it was painted. `unconditional` leaves the image out: what the generator
        paints for any scene. Noise is a function of `seed` and the image's pixels, so an image's depth doesn't depend
        on what is painted beside it.
        """
        if steps < 1 or ensemble < 1:
            raise ValueError(f"depth: steps ({steps}) and ensemble ({ensemble}) must be at least 1")
        frames = [Frame(read_image(image)) for image in images]
        predictions: dict[int, DepthPrediction] = {}
        with _evaluating(self.gem):
            for (height, width), places in self._by_size(frames).items():
                for chunk in _chunks(places, max(1, self.batch_size // ensemble)):
                    own = [frames[place] for place in chunk]
                    samples = [Sample(str(row), (frame,), (), scene="", source="") for row, frame in enumerate(own)]
                    painted = self.gem.paint(
                        self._collate(samples).to(self.device),
                        height,
                        width,
                        steps=steps,
                        guidance=guidance,
                        keys=[key for frame in own for key in _noise_keys(frame, seed, ensemble)],
                        condition_on=[row for row in range(len(chunk)) for _ in range(ensemble)],
                        unconditional=unconditional,
                    )
                    pictures = painted.float().cpu().numpy().reshape(len(chunk), ensemble, 3, height, width)
                    source = f"gemvlm {self.card.recipe}, step {self.card.step}"
                    for place, its_own in zip(chunk, pictures, strict=True):
                        predictions[place] = decode_pictures(its_own, self.encoding, source)
        found = [predictions[place] for place in range(len(frames))]
        if not as_image:
            return found
        return [each.resized(*frame.image.shape[:2]) for each, frame in zip(found, frames, strict=True)]

    def _by_size(self, frames: Sequence[Frame]) -> dict[tuple[int, int], list[int]]:
        """Places of the frames by the (height, width) that is painted: the card's, or by the published rule."""
        size = self.card.target
        places: dict[tuple[int, int], list[int]] = {}
        for place, frame in enumerate(frames):
            painted = (size["height"], size["width"]) if size else target_size(*frame.image.shape[:2])
            places.setdefault(painted, []).append(place)
        return places


def read_image(image: ImageLike) -> UInt8[np.ndarray, "H W 3"]:
    """An upright RGB array. ValueError names the file, or what is wrong with the array, and the remedy."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image: array is {image.dtype} {image.shape}; give uint8 (height, width, 3) in RGB")
        return image
    if isinstance(image, Image.Image):
        return _upright_rgb(image, "image")
    try:
        with Image.open(image) as opened:
            return _upright_rgb(opened, str(image))
    except UnidentifiedImageError:
        raise ValueError(f"{image}: not an image that can be read; give a PNG, JPEG or WebP file") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        if not Path(image).is_file():
            raise ValueError(f"{image}: no such image file; check the name") from None
        raise ValueError(f"{image}: the image is damaged or far too large ({error}); write the file again") from None


def _upright_rgb(image: Image.Image, name: str) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{name}: mode {image.mode} is not a colour picture (a depth map?); give the 8-bit RGB image")
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def _frames(images: ImageLike | Sequence[ImageLike]) -> list[Frame]:
    if isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
        images = [images]
    return [Frame(read_image(image)) for image in images]


def _noise_keys(frame: Frame, seed: int, ensemble: int) -> list[int]:
    content = blake2b(frame.image.tobytes(), digest_size=16).hexdigest()
    return [keyed(seed, frame.image.shape, content, member) for member in range(ensemble)]


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@contextlib.contextmanager
def _evaluating(gem: Gem) -> Iterator[None]:
    """No dropout inside; the mode is put back afterwards, for previews while a model trains."""
    was_training = gem.training
    gem.eval()
    try:
        yield
    finally:
        gem.train(was_training)
