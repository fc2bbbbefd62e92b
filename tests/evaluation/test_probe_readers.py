"""Readers of states: ours against the stock model that holds the same weights, and a stock model of another family."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, BatchFeature

from gemvlm.data.collate import Collator
from gemvlm.data.frames import ImageConfig
from gemvlm.evaluation.probe_readers import GemReader, HuggingFaceReader, MeanMap, Position, StateReader, untrained
from gemvlm.inference import GemPipeline, load
from gemvlm.sample import Frame, Sample

NANO = Path(str(files("gemvlm"))) / "checkpoints" / "nano"
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 255, (96, 96, 3)).astype(np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def nano() -> GemPipeline:
    return load("nano", "cpu")


class OurProcessor:
    """Writes one image as our collator does, for a stock Qwen3-VL."""

    chat_template = None
    image_token = "<|image_pad|>"

    def __init__(self, pipeline: GemPipeline) -> None:
        self.collate = Collator(pipeline.tokenizer, pipeline.coordinates, ImageConfig(**pipeline.card.image))

    def __call__(self, text: list[str], images: list, return_tensors: str) -> BatchFeature:
        batch = self.collate([Sample("0", (Frame(np.array(images[0])),), (), "", "")])
        ids = batch.input_ids[None]
        inside = torch.zeros_like(ids)
        for start, end in batch.spans.tolist():
            inside[0, start:end] = 1
        grids = {"pixel_values": batch.pixel_values, "image_grid_thw": batch.image_grid_thw}
        return BatchFeature({"input_ids": ids, "mm_token_type_ids": inside, **grids})


def test_our_reader_gives_the_states_of_the_stock_model(nano: GemPipeline) -> None:
    stock = AutoModelForImageTextToText.from_pretrained(NANO, dtype=torch.float32)
    theirs = HuggingFaceReader(stock, OurProcessor(nano), "stock")
    ours = GemReader(nano)
    assert ours.layers == theirs.layers == tuple(range(7))
    for one, other in zip(ours.read(IMAGES), theirs.read(IMAGES), strict=True):
        assert one.grid == other.grid == (6, 6)
        assert one.states.shape == (7, 36, 192)
        # stock states of layers 1 and 2 are taken before DeepStack adds to them, ours are what the layer receives
        same = [0, 3, 4, 5, 6]
        torch.testing.assert_close(one.states[same], other.states[same], atol=2e-3, rtol=1e-3)


def test_states_of_an_image_do_not_depend_on_its_neighbours(nano: GemPipeline) -> None:
    reader = GemReader(nano)
    together = reader.read(IMAGES)
    alone = reader.read(IMAGES[1:2])[0]
    torch.testing.assert_close(together[1].states, alone.states, atol=1e-4, rtol=1e-4)
    assert isinstance(reader, StateReader)


def test_random_weights_are_those_of_the_seed(nano: GemPipeline) -> None:
    first, again, other = (GemReader(untrained(nano, seed)).read(IMAGES[:1])[0].states for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, GemReader(nano).read(IMAGES[:1])[0].states)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny LLaVA with random weights: 32 x 32 pixels, 4 x 4 tokens, three layers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as ImageProcessor
    except ImportError:
        from transformers import CLIPImageProcessor as ImageProcessor

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<image>": 1, "<pad>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", additional_special_tokens=["<image>"]
    )
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=8,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), image_token_index=1, vision_feature_layer=-1
    )
    processor = LlavaProcessor(
        ImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )
    folder = tmp_path_factory.mktemp("llava")
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_any_image_text_model_is_read_row_by_row(llava: Path) -> None:
    reader = HuggingFaceReader.load(str(llava), "cpu")
    grey = np.full((64, 64, 3), 100, np.uint8)
    marked = grey.copy()
    marked[:16, 48:] = 255
    before, after = reader.read([grey, marked])
    assert before.grid == (4, 4) and before.states.shape == (4, 16, 48) and reader.layers == (0, 1, 2, 3)
    change = (before.states[0] - after.states[0]).abs().sum(-1)
    assert int(change.argmax()) == 3, "the last token of the first row is the one whose part of the image changed"
    fresh = reader.with_random_weights("random weights", 1).read([grey])[0]
    assert fresh.states.shape == before.states.shape and not torch.allclose(fresh.states, before.states)


def test_models_without_a_grid_of_image_tokens_are_refused_in_words(llava: Path) -> None:
    reader = HuggingFaceReader.load(str(llava), "cpu")
    with pytest.raises(ValueError, match="15 image tokens, which are no grid of 3 x 3"):
        reader._grid({}, 15)
    with pytest.raises(ValueError, match="0 image tokens"):
        reader._grid({}, 0)
    blind = SimpleNamespace(config=SimpleNamespace(), eval=lambda: None)
    with pytest.raises(ValueError, match="names no image token"):
        HuggingFaceReader(blind, None, "blind")
    with pytest.raises(ValueError, match="neither a checkpoint of gemvlm nor"):
        HuggingFaceReader.load(str(llava.parent / "nothing"), "cpu")


def test_place_features_are_the_same_for_every_image_and_differ_between_tokens() -> None:
    for reader in (Position((5, 7)), MeanMap((5, 7))):
        first, second = reader.read(IMAGES[:2])
        assert torch.equal(first.states, second.states) and first.states.shape[:2] == (1, 35)
        assert len(torch.unique(first.states[0], dim=0)) == 35
