"""Which tokens of a stranger's model stand for which image: one span per image, whatever its family writes around it.

    GridSpans    Qwen2-VL to Qwen3.5: an image is one run of tokens, as many as `image_grid_thw` says
    EqualSpans   PaliGemma: every image has the same number of tokens, and images may stand side by side
    TiledSpans   SmolVLM, Idefics3: an image is several runs, its tiles and then the whole, each with its name before it

Checked against transformers 5.23: `models/qwen3_vl/modeling_qwen3_vl.py`, `models/paligemma/processing_paligemma.py`,
`models/smolvlm/processing_smolvlm.py` (`_prompt_split_image`). The names of tiles are tokens of some tokenizers only
(HuggingFaceTB/SmolVLM-Base, `added_tokens.json` at 7d9e73d, has none), so they are read as text. Another family is
another class with a `find`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NoReturn, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class ImageTokens:
    """The image tokens of a batch of B rows of S tokens (padded, or one packed row), on the axis of all B·S tokens.

    `places` holds them image after image, each image's in raster order of its picture; what is no part of the raster (a
    tiled image's overview) follows. `spans` are the half-open ranges of the images in `places`, `grids` the rows and
    columns of their rasters.
    """

    places: Int64[Tensor, "n"]
    spans: Int64[Tensor, "N 2"]
    grids: Int64[Tensor, "N 2"]

    def states(self, hidden: Float[Tensor, "B S D"]) -> Float[Tensor, "n D"]:
        """The states at `places`: what `GenerativeSupervision` reads, with `spans` and `grids`."""
        return hidden.flatten(0, 1)[self.places]


@runtime_checkable
class SpanFinder(Protocol):
    """Finds the images of a batch. ValueError, naming sample and image, if tokens and images don't agree."""

    def find(self, input_ids: Int64[Tensor, "B S"], inputs: Mapping[str, Any]) -> ImageTokens:
        """`inputs` are the other arguments of the model's forward, as its processor makes them."""
        ...


@dataclass(frozen=True)
class GridSpans:
    """One run of tokens per image, sized by `image_grid_thw` (patches), of which `merge`² make a token."""

    image_token_id: int
    merge: int

    def find(self, input_ids: Int64[Tensor, "B S"], inputs: Mapping[str, Any]) -> ImageTokens:
        patches = inputs.get("image_grid_thw")
        if patches is None:
            patches = input_ids.new_zeros(0, 3)
        if bool((patches[:, 0] != 1).any()):
            raise ValueError(
                f"image_grid_thw has images of {patches[:, 0].max()} frames; give each frame of a video as an image"
            )
        return _runs(input_ids, self.image_token_id, patches[:, 1:].to(input_ids.device) // self.merge)


@dataclass(frozen=True)
class EqualSpans:
    """`rows` x `columns` tokens for every image; images may stand side by side."""

    image_token_id: int
    rows: int
    columns: int

    def find(self, input_ids: Int64[Tensor, "B S"], inputs: Mapping[str, Any]) -> ImageTokens:
        count = int((input_ids == self.image_token_id).sum()) // (self.rows * self.columns)
        grids = torch.tensor([[self.rows, self.columns]], device=input_ids.device).repeat(count, 1)
        return _runs(input_ids, self.image_token_id, grids)


@runtime_checkable
class Decoder(Protocol):
    """A tokenizer, or a processor that has one."""

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> str: ...


GRID_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
TILED_FAMILIES = ("smolvlm", "idefics3")
EQUAL_FAMILIES = ("paligemma",)

MARK = re.compile(r"<(?:row_(\d+)_col_(\d+)|global-img)>$")
MARK_TOKENS = 16
"""Tokens before a tile that are read for its name: early SmolVLM tokenizers write a name in about ten."""
WHOLE = (0, 0)

CURE = "give the processor's ids and grids as they are, and don't truncate inside an image"


@dataclass(frozen=True)
class TiledSpans:
    """Runs of `side` x `side` tokens: an image's tiles `<row_r_col_c>` in raster order, then `<global-img>`, the whole.

    The tiles' tokens are put in the raster order of the picture they were cut from; the whole follows, and is the
    raster of an image without tiles.
    """

    image_token_id: int
    side: int
    tokenizer: Decoder

    def find(self, input_ids: Int64[Tensor, "B S"], inputs: Mapping[str, Any]) -> ImageTokens:
        runs = EqualSpans(self.image_token_id, self.side, self.side).find(input_ids, inputs)
        squares = runs.places.view(-1, self.side, self.side)
        ids = input_ids.tolist()
        images: list[Tensor] = []
        grids: list[tuple[int, int]] = []
        tiles: list[tuple[int, int]] = []
        owner = 0
        for number, place in enumerate(squares[:, 0, 0].tolist()):
            sample, column = divmod(place, input_ids.shape[1])
            if tiles and sample != owner:
                _refuse_tiles(owner, len(images), tiles, "the sample ends")
            owner, mark = sample, self._mark(ids[sample][:column])
            if mark is None:
                _refuse_tiles(sample, len(images), tiles, f"come {self.side**2} image tokens without a name")
            if mark != WHOLE:
                tiles.append(mark)
                continue
            rows, columns = tiles[-1] if tiles else (1, 1)
            if tiles and tiles != [(r, c) for r in range(1, rows + 1) for c in range(1, columns + 1)]:
                _refuse_tiles(sample, len(images), tiles, "comes the whole, but they are no full grid in raster order")
            cut = squares[number - len(tiles) : number].view(-1, columns, self.side, self.side).transpose(1, 2)
            images.append(torch.cat([cut.flatten(), squares[number].flatten()]))
            grids.append((rows * self.side, columns * self.side))
            tiles = []
        if tiles:
            _refuse_tiles(owner, len(images), tiles, "the sample ends")
        return _joined(images, grids, runs)

    def _mark(self, before: Sequence[int]) -> tuple[int, int] | None:
        """(row, column), from 1, of the tile that stands after these ids; `WHOLE`; or None if nothing names it."""
        words = list(takewhile(lambda token: token != self.image_token_id, before[: -MARK_TOKENS - 1 : -1]))[::-1]
        found = MARK.search(self.tokenizer.decode(words).replace(" ", ""))
        return None if found is None else (int(found[1] or 0), int(found[2] or 0))


def finder_of(config: Any, tokenizer: Decoder | None = None) -> SpanFinder:
    """The finder of a model's family by its configuration. ValueError for families that are not known here.

    Tiled families need the tokenizer (or processor), which alone knows how the tiles are named.
    """
    family = config.model_type
    known = {*GRID_FAMILIES, *TILED_FAMILIES, *EQUAL_FAMILIES}
    if family not in known:
        raise ValueError(
            f"model_type {family!r} is none of {sorted(known)}; give a finder: GridSpans, EqualSpans, or your own"
        )
    token, vision = config.image_token_id, config.vision_config
    if family in GRID_FAMILIES:
        return GridSpans(token, vision.spatial_merge_size)
    if family in TILED_FAMILIES:
        if tokenizer is None:
            raise ValueError(f"{family}: its tiles are named in words; give the tokenizer or processor that wrote them")
        return TiledSpans(token, vision.image_size // vision.patch_size // config.scale_factor, tokenizer)
    side = vision.image_size // vision.patch_size
    return EqualSpans(token, side, side)


def _runs(input_ids: Tensor, token: int, grids: Int64[Tensor, "N 2"]) -> ImageTokens:
    """Images that are one run each, in the order of `grids`."""
    places = (input_ids.flatten() == token).nonzero()[:, 0]
    lengths = grids.prod(1)
    ends = lengths.cumsum(0)
    if int(lengths.sum()) != len(places) or not bool(_whole(places, ends - lengths, ends, input_ids.shape[1]).all()):
        _refuse_runs(places, grids, input_ids.shape[1])
    return ImageTokens(places, torch.stack([ends - lengths, ends], dim=1), grids)


def _whole(places: Tensor, starts: Tensor, ends: Tensor, row: int) -> Tensor:
    """For each image, whether its tokens stand side by side in one row of `row` tokens."""
    first, last = places[starts], places[ends - 1]
    return (last - first == ends - 1 - starts) & (first // row == last // row)


def _joined(images: Sequence[Tensor], grids: Sequence[tuple[int, int]], like: ImageTokens) -> ImageTokens:
    if not images:
        return like
    ends = torch.tensor([len(image) for image in images], device=like.places.device).cumsum(0)
    starts = torch.nn.functional.pad(ends[:-1], (1, 0))
    return ImageTokens(torch.cat(list(images)), torch.stack([starts, ends], dim=1), like.grids.new_tensor(grids))


def _refuse_runs(places: Tensor, grids: Tensor, row: int) -> NoReturn:
    """Says which image is the first that the tokens don't fit."""
    left = places.tolist()
    total = f"input_ids hold {len(left)} image tokens, the {len(grids)} images need {int(grids.prod(1).sum())}"
    for image, (rows, columns) in enumerate(grids.tolist()):
        if not left:
            raise ValueError(
                f"image {image} of the batch ({rows}x{columns} tokens) has no tokens left: {total}; {CURE}"
            )
        there = next(
            (i for i, place in enumerate(left) if place != left[0] + i or place // row != left[0] // row), len(left)
        )
        if there < rows * columns:
            raise ValueError(
                f"sample {left[0] // row}, image {image} of the batch: it needs {rows}x{columns} tokens side by side, "
                f"{there} are there; {total}; {CURE}"
            )
        left = left[rows * columns :]
    raise ValueError(f"sample {left[0] // row}: its last {len(left)} image tokens have no image; {total}; {CURE}")


def _refuse_tiles(sample: int, image: int, tiles: Sequence[tuple[int, int]], what: str) -> NoReturn:
    raise ValueError(
        f"sample {sample}, image {image} of the batch: after {len(tiles)} tiles {tiles[-3:]} {what}; {CURE}"
    )
