"""A trained model that answers people: images in, words, places and depth out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import NamedTuple, TypeVar

import torch
from transformers import PreTrainedTokenizerFast

from gemvlm.batch import Batch
from gemvlm.camera import Camera, View
from gemvlm.data.collate import Collator, Prompt, keyed
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.data.frames import ImageConfig
from gemvlm.depth_map import DepthMap, Encoding, target_size
from gemvlm.flow import Steps
from gemvlm.inference.answer import Answer, generate_replies
from gemvlm.inference.depth import Combine, DepthPrediction, decode_pictures
from gemvlm.inference.images import ImageLike, Images, read_image, read_images
from gemvlm.inference.locate import LocateRequest, Location, check_request, located
from gemvlm.inference.phrases import Plan, box_of, point_to, point_to_every, read_plan, steps_to
from gemvlm.inference.streaming import TextStream
from gemvlm.model.card import CheckpointCard
from gemvlm.model.gem import Gem
from gemvlm.runtime import get_log
from gemvlm.sample import Box, Frame, Point, Sample

T = TypeVar("T")
POINT_TOKENS, POINTS_TOKENS = 48, 1024
"""Of a reply that points to one thing, or to every one."""


class Request(NamedTuple):
    """A question about images, after earlier (question, answer) pairs; where images stand: see `GemPipeline.ask`."""

    images: Images
    question: str
    history: Sequence[tuple[str, str]] = ()


AnyRequest = Request | tuple[Images, str]


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
    def context(self) -> int:
        """Tokens that a conversation and its answer may have together."""
        return int(self.gem.backbone.qwen.config.text_config.max_position_embeddings)

    @property
    def encoding(self) -> Encoding:
        """How depth becomes the picture that the model paints."""
        return self.gem.config.encoding

    def ask(
        self,
        images: Images,
        question: str,
        *,
        history: Sequence[tuple[str, str]] = (),
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """The model's answer to a question about one image, several, the frames of a video, or none.

        `history` holds earlier questions and answers. Images stand before the first question, or, in order, where
        `<image>` stands in the questions: `ask([a, b], "<image> And here?", history=[("<image> What?", "a mug")])`.
        ValueError unless there are none or one for each.
        """
        request = Request(images, question, history)
        return self.ask_batch([request], max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)[0]

    def ask_batch(
        self,
        requests: Sequence[AnyRequest],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Answer]:
        """Answers to (images, question) requests. At temperature 0 the likeliest token is taken each time."""
        answers: list[Answer] = []
        with _evaluating(self.gem):
            for chunk in _chunks(list(requests), self.batch_size):
                replies = generate_replies(
                    self.gem,
                    self.tokenizer,
                    self._prompts(chunk, max_new_tokens),
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    seed=seed,
                )
                answers += [Answer.from_text(text, self.coordinates, finished) for text, finished in replies]
        return answers

    def ask_stream(
        self,
        images: Images,
        question: str,
        *,
        history: Sequence[tuple[str, str]] = (),
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> TextStream:
        """The text of `ask` in pieces, while it is made. Bad input is refused here, before the first piece is asked."""
        prompt = self._prompts([Request(images, question, history)], max_new_tokens)
        return TextStream(
            self.gem, self.tokenizer, prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )

    def point(self, image: ImageLike, expression: str) -> Point | None:
        """Where the thing that `expression` names is ("red mug"); None if the reply holds no point."""
        return self.point_batch([(image, expression)])[0]

    def point_batch(self, requests: Sequence[tuple[ImageLike, str]]) -> list[Point | None]:
        """`point` for (image, expression) requests."""
        asked = [(image, point_to(expression)) for image, expression in requests]
        answers = self.ask_batch(asked, max_new_tokens=POINT_TOKENS)
        return [answer.points[0] if answer.points else None for answer in answers]

    def points(self, image: ImageLike, expression: str) -> tuple[Point, ...]:
        """Where every thing is that `expression` fits ("mug"); empty if the reply holds no point."""
        return self.points_batch([(image, expression)])[0]

    def points_batch(self, requests: Sequence[tuple[ImageLike, str]]) -> list[tuple[Point, ...]]:
        """`points` for (image, expression) requests. A reply that was cut off is told in the log."""
        asked = [(image, point_to_every(expression)) for image, expression in requests]
        answers = self.ask_batch(asked, max_new_tokens=POINTS_TOKENS)
        for (_, expression), answer in zip(requests, answers, strict=True):
            if not answer.finished:
                get_log().warning("%r: the reply was cut after %d tokens; there may be more", expression, POINTS_TOKENS)
        return [answer.points for answer in answers]

    def box(self, image: ImageLike, expression: str) -> Box | None:
        """The box of what is visible of a thing; None if the reply holds no box."""
        return self.box_batch([(image, expression)])[0]

    def box_batch(self, requests: Sequence[tuple[ImageLike, str]]) -> list[Box | None]:
        """`box` for (image, expression) requests."""
        answers = self.ask_batch([(image, box_of(expression)) for image, expression in requests])
        return [answer.boxes[0] if answer.boxes else None for answer in answers]

    def plan(self, images: Images, goal: str, *, max_new_tokens: int = 256) -> Plan:
        """The steps that remain toward a goal ("put the red mug on the blue box"), as the last image shows things.

        A goal to lift something ("lift the red mug") asks what must be removed before.
        """
        return self.plan_batch([(images, goal)], max_new_tokens=max_new_tokens)[0]

    def plan_batch(self, requests: Sequence[tuple[Images, str]], *, max_new_tokens: int = 256) -> list[Plan]:
        """`plan` for (images, goal) requests."""
        shown = [read_images(images) for images, _ in requests]
        goals = [goal for _, goal in requests]
        asked = [Request(images, steps_to(goal, len(images))) for images, goal in zip(shown, goals, strict=True)]
        answers = self.ask_batch(asked, max_new_tokens=max_new_tokens)
        return [read_plan(goal, answer.text, answer.finished) for goal, answer in zip(goals, answers, strict=True)]

    def describe(self, image: ImageLike, *, max_new_tokens: int = 512) -> Answer:
        """Everything that the model sees, with its places."""
        return self.ask(image, "Describe the scene.", max_new_tokens=max_new_tokens)

    def locate(
        self,
        image: ImageLike,
        expression: str,
        view: Camera | View,
        *,
        depth: DepthMap | None = None,
        fit: DepthMap | None = None,
        support_m: float | None = None,
        steps: int | Steps = 30,
        guidance: float = 1.0,
        seed: int = 0,
        ensemble: int = 1,
    ) -> Location:
        """Where in space the thing is that `expression` names: in the camera's frame, and with a `View` in the world's.

        Depth is `depth` if you have measured it, else what the model paints: as it is if that is metric, or aligned to
        `fit`, measured depth of a few pixels, or to the level surface at world z = `support_m` (a `View` is needed)
        that the thing stands on; then a box is asked for as well, whose lower edge is the foot. Maps have the image's
        size. See `Location` for what may be missing.
        """
        request = LocateRequest(image, expression, view, depth, fit, support_m)
        return self.locate_batch([request], steps=steps, guidance=guidance, seed=seed, ensemble=ensemble)[0]

    def locate_batch(
        self,
        requests: Sequence[LocateRequest],
        *,
        steps: int | Steps = 30,
        guidance: float = 1.0,
        seed: int = 0,
        ensemble: int = 1,
    ) -> list[Location]:
        """`locate` for several requests; depth is painted once for each different image, where a point was found."""
        images = [read_image(request.image) for request in requests]
        for image, request in zip(images, requests, strict=True):
            check_request(image, request, self.encoding.is_fixed)
        asked = [(image, point_to(request.expression)) for image, request in zip(images, requests, strict=True)]
        answers = self.ask_batch(asked, max_new_tokens=POINT_TOKENS)
        standing = [i for i, answer in enumerate(answers) if answer.points and requests[i].support_m is not None]
        drawn = self.box_batch([(images[i], requests[i].expression) for i in standing])
        boxes = dict(zip(standing, drawn, strict=True))
        keys = [blake2b(repr(image.shape).encode() + image.tobytes()).digest() for image in images]
        wanted = {
            key: image
            for key, image, request, answer in zip(keys, images, requests, answers, strict=True)
            if answer.points and request.depth is None
        }
        painted = self.depth_batch(list(wanted.values()), steps=steps, guidance=guidance, seed=seed, ensemble=ensemble)
        generated = {key: prediction.depth for key, prediction in zip(wanted, painted, strict=True)}
        found = []
        for i, (key, request, answer) in enumerate(zip(keys, requests, answers, strict=True)):
            location = Location(request.expression, answer.text)
            if not answer.points:
                found.append(replace(location, missing="the reply holds no point"))
                continue
            found.append(located(location, answer.points[0], request, generated.get(key), boxes.get(i)))
        return found

    def depth(
        self,
        image: ImageLike,
        *,
        steps: int | Steps = 30,
        guidance: float = 1.0,
        seed: int = 0,
        ensemble: int = 1,
        combine: Combine = "median",
        as_image: bool = True,
    ) -> DepthPrediction:
        """The depth of one image; see `depth_batch`."""
        return self.depth_batch(
            [image],
            steps=steps,
            guidance=guidance,
            seed=seed,
            ensemble=ensemble,
            combine=combine,
            as_image=as_image,
        )[0]

    def depth_batch(
        self,
        images: Sequence[ImageLike],
        *,
        steps: int | Steps = 30,
        guidance: float = 1.0,
        seed: int = 0,
        ensemble: int = 1,
        combine: Combine = "median",
        as_image: bool = True,
        unconditional: bool = False,
    ) -> list[DepthPrediction]:
        """The depth of each image, painted from the states of that image alone.

        Guidance 1 samples what the model believes; more exaggerates what the image says over what scenes are usually
        like, at twice the work. `steps` is a number of Euler steps, or `Steps` with another solver or spacing.
        `ensemble` takes the median (or mean) of several paintings, and says how far they lie apart (`spread`). Depth
        has the image's size, or with `as_image` False the size at which it was painted. `unconditional` leaves the
        image out: what the generator paints for any scene. Noise is a function of `seed` and the image's pixels, so an
        image's depth doesn't depend on what is painted beside it.
        """
        if ensemble < 1:
            raise ValueError(f"depth: ensemble ({ensemble}) must be at least 1")
        steps = Steps.of(steps)
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
                        predictions[place] = decode_pictures(its_own, self.encoding, source, combine)
        found = [predictions[place] for place in range(len(frames))]
        if not as_image:
            return found
        return [each.resized(*frame.image.shape[:2]) for each, frame in zip(found, frames, strict=True)]

    def _prompts(self, requests: Sequence[AnyRequest], new_tokens: int = 0) -> Batch:
        """ValueError if a conversation and its answer are longer than the model can hold."""
        prompts = []
        for images, question, history in (Request(*request) for request in requests):
            prompts.append(Prompt([Frame(image) for image in read_images(images)], question, history))
        batch = self._collate.prompts(prompts)
        longest = int(batch.lengths.max())
        if longest + new_tokens > self.context:
            raise ValueError(
                f"a question with its images is {longest} tokens and its answer may have {new_tokens}, but the model "
                f"holds {self.context}; ask with fewer images or words, or for a shorter answer (max_new_tokens)"
            )
        return batch

    def _by_size(self, frames: Sequence[Frame]) -> dict[tuple[int, int], list[int]]:
        """Places of the frames by the (height, width) that is painted: the card's, or by the published rule."""
        size = self.card.target
        places: dict[tuple[int, int], list[int]] = {}
        for place, frame in enumerate(frames):
            painted = (size["height"], size["width"]) if size else target_size(*frame.image.shape[:2])
            places.setdefault(painted, []).append(place)
        return places


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
