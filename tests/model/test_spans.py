"""Image spans in the ids of other people's models: tiles, neighbours, packing, and ids that don't fit."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from gemvlm.model.spans import EqualSpans, GridSpans, TiledSpans, finder_of

IMAGE = 9


def rows(*samples: list[int]) -> torch.Tensor:
    """Right-padded with 0."""
    return torch.tensor([sample + [0] * (max(map(len, samples)) - len(sample)) for sample in samples])


class Words:
    """A tokenizer that knows the tiles' names as tokens, or writes them letter by letter as early SmolVLM's does."""

    def __init__(self, spelled: bool):
        names = [f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)] + ["<global-img>"]
        letters = [*"<>_-\n abcdefghijklmnopqrstuvwxyz0123456789"]
        words = [*letters, "<fake_token_around_image>"] + ([] if spelled else names)
        self.ids = {word: 10 + number for number, word in enumerate(words)} | {"<image>": IMAGE}
        self.pattern = re.compile("|".join(re.escape(word) for word in sorted(self.ids, key=len, reverse=True)))

    def __call__(self, text: str) -> list[int]:
        return [self.ids[word] for word in self.pattern.findall(text)]

    def decode(self, token_ids: list[int]) -> str:
        words = {number: word for word, number in self.ids.items()}
        return " ".join(words[token] for token in token_ids)


def tiled_prompt(grid: tuple[int, int], side: int = 2) -> str:
    """As transformers' own processor writes it."""
    return get_image_prompt_string(*grid, side**2, "<fake_token_around_image>", "<image>", "<global-img>")


def test_runs_of_different_sizes_in_padded_rows():
    ids = rows([1, 9, 9, 9, 9, 2, 9, 9, 9, 9, 9, 9, 2], [3, 3, 1, 9, 9, 2])
    grid = torch.tensor([[1, 4, 4], [1, 4, 6], [1, 2, 4]])
    tokens = GridSpans(IMAGE, 2).find(ids, {"image_grid_thw": grid})
    assert tokens.grids.tolist() == [[2, 2], [2, 3], [1, 2]]
    assert [tokens.places[slice(*span)].tolist() for span in tokens.spans.tolist()] == [
        [1, 2, 3, 4],
        [6, 7, 8, 9, 10, 11],
        [13 + 3, 13 + 4],
    ]
    states = torch.arange(2 * 13 * 3.0).view(2, 13, 3)
    assert torch.equal(tokens.states(states)[-1], states[1, 4])


def test_padding_side_and_packing_make_no_difference():
    samples = [[1, 9, 9, 9, 9, 2, 5], [1, 9, 9, 2]]
    grid = {"image_grid_thw": torch.tensor([[1, 4, 4], [1, 2, 4]])}
    left = torch.tensor([samples[0], [0, 0, 0] + samples[1]])
    packed = torch.tensor([samples[0] + samples[1]])
    for ids in (rows(*samples), left, packed):
        tokens = GridSpans(IMAGE, 2).find(ids, grid)
        assert (ids.flatten()[tokens.places] == IMAGE).all()
        assert tokens.spans.tolist() == [[0, 4], [4, 6]]


def test_neighbours_without_anything_between_them():
    """PaliGemma writes the tokens of two images as one run."""
    tokens = EqualSpans(IMAGE, 2, 2).find(rows([9] * 8 + [1, 2], [9] * 4 + [1]), {})
    assert tokens.spans.tolist() == [[0, 4], [4, 8], [8, 12]]
    assert tokens.places.tolist() == [*range(8), 10, 11, 12, 13]


@pytest.mark.parametrize("spelled", [False, True])
def test_tiles_are_put_in_the_order_of_the_picture(spelled):
    """2 x 3 tiles of 2 x 2 tokens are a raster of 4 x 6; the whole image's tokens follow."""
    words = Words(spelled)
    prompt = words("look ") + words(tiled_prompt((2, 3)))
    ids = rows(prompt + words(tiled_prompt((0, 0))), words("a ") + words(tiled_prompt((1, 2))))
    tokens = TiledSpans(IMAGE, 2, words).find(ids, {})
    assert tokens.grids.tolist() == [[4, 6], [2, 2], [2, 4]]
    first, second, third = (tokens.places[slice(*span)] for span in tokens.spans.tolist())
    assert (len(first), len(second), len(third)) == (28, 4, 12)
    assert (ids.flatten()[tokens.places] == IMAGE).all()
    assert sorted(tokens.places.tolist()) == (ids.flatten() == IMAGE).nonzero()[:, 0].tolist()
    raster, runs = first[:24].view(4, 6), (ids[0] == IMAGE).nonzero()[:24, 0].view(6, 2, 2)
    for tile in range(6):
        row, column = 2 * (tile // 3), 2 * (tile % 3)
        assert torch.equal(raster[row : row + 2, column : column + 2], runs[tile])
    assert first[24:].tolist() == (ids[0] == IMAGE).nonzero()[24:28, 0].tolist()
    assert (third >= ids.shape[1]).all()


def test_no_images():
    ids = rows([1, 2, 3])
    for finder in (GridSpans(IMAGE, 2), EqualSpans(IMAGE, 2, 2), TiledSpans(IMAGE, 2, Words(False))):
        tokens = finder.find(ids, {})
        assert len(tokens.places) == len(tokens.spans) == len(tokens.grids) == 0


@pytest.mark.parametrize(
    ("samples", "grid", "message"),
    [
        ([[1, 9, 9, 9, 9], [1, 9, 9, 2]], [[1, 4, 4], [1, 4, 4]], r"sample 1, image 1 .* 2x2 tokens .* 2 are there"),
        ([[1, 9, 9, 2, 9, 9, 9, 9]], [[1, 4, 4], [1, 2, 4]], r"sample 0, image 0 .* 2x2 .* 2 are there"),
        (
            [[1, 9, 9, 9, 9, 2]],
            [[1, 4, 4], [1, 2, 4]],
            r"image 1 .* no tokens left: .* 4 image tokens, the 2 .* need 6",
        ),
        ([[1, 9, 9, 9, 9], [9, 9, 3]], [[1, 4, 4]], r"sample 1: its last 2 image tokens have no image"),
        ([[1, 9, 9], [9, 9, 3]], [[1, 4, 4]], r"sample 0, image 0 .* 2 are there"),
        ([[1, 9, 9, 9, 9, 2]], [[2, 2, 4]], "2 frames; give each frame of a video as an image"),
    ],
)
def test_ids_and_grids_that_disagree_are_refused(samples, grid, message):
    """A14: spans are never cut or shifted in silence."""
    with pytest.raises(ValueError, match=message):
        GridSpans(IMAGE, 2).find(rows(*samples), {"image_grid_thw": torch.tensor(grid)})


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda text: text.replace("<row_1_col_2>", "<row_2_col_1>", 1), "no full grid in raster order"),
        (lambda text: text.replace("<global-img>", "", 1), "image tokens without a name"),
        (lambda text: text[: text.index("<global-img>")], "after 4 tiles .* the sample ends"),
        (lambda text: text.replace("<image>", "", 1), r"needs 2x2 tokens side by side, 3 are there"),
    ],
)
def test_damaged_tiles_are_refused(cut, message):
    words = Words(False)
    ids = rows(words(cut(tiled_prompt((2, 2)))), words(tiled_prompt((0, 0))))
    with pytest.raises(ValueError, match=message):
        TiledSpans(IMAGE, 2, words).find(ids, {})


def test_families_are_known_by_their_configuration():
    vision = SimpleNamespace(image_size=8, patch_size=2, spatial_merge_size=2)

    def config(family: str) -> SimpleNamespace:
        return SimpleNamespace(model_type=family, image_token_id=IMAGE, vision_config=vision, scale_factor=2)

    words = Words(False)
    assert finder_of(config("qwen3_vl")) == GridSpans(IMAGE, 2)
    assert finder_of(config("paligemma")) == EqualSpans(IMAGE, 4, 4)
    assert finder_of(config("smolvlm"), words) == TiledSpans(IMAGE, 2, words)
    with pytest.raises(ValueError, match="give the tokenizer or processor"):
        finder_of(config("idefics3"))
    with pytest.raises(ValueError, match=r"'blip' is none of .* give a finder"):
        finder_of(config("blip"))
