"""Token ids equal the published ones; labels follow who speaks."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from gemvlm.batch import IGNORE
from gemvlm.data.conversation import ImageSlot, Segment, render_dialogue
from gemvlm.data.encoding import Encoder
from gemvlm.data.frames import ImageConfig

PUBLISHED = json.loads((Path(__file__).parent / "published_prompts.json").read_text())


@pytest.fixture(scope="module")
def published() -> Encoder:
    """The published tokenizer reduced to the words of the stored prompts, under their published ids."""
    words = Tokenizer(models.WordLevel(PUBLISHED["vocabulary"]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.add_special_tokens([word for word in PUBLISHED["vocabulary"] if word.startswith("<|")])
    return Encoder(PreTrainedTokenizerFast(tokenizer_object=words))


@pytest.mark.parametrize("prompt", PUBLISHED["prompts"], ids=lambda prompt: prompt["question"])
def test_ids_equal_the_published_processor(published: Encoder, prompt: dict) -> None:
    config = ImageConfig()
    tokens = [config.tokens(config.grid(height, width)) for height, width in prompt["images"]]
    parts = render_dialogue(len(tokens), [(prompt["question"], None)], system=prompt["system"])
    assert published(parts, tokens).input_ids.tolist() == [id for id, times in prompt["ids"] for _ in range(times)]


def test_placeholders_expand_as_the_published_processor_expands_them(tokenizer: PreTrainedTokenizerFast) -> None:
    grids = torch.tensor([[1, 4, 6], [1, 8, 8]])
    expand = SimpleNamespace(image_processor=SimpleNamespace(merge_size=2), image_token="<|image_pad|>")
    text = tokenizer.apply_chat_template(
        [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Where is it?"}],
            },
            {"role": "assistant", "content": "(120, 340)"},
        ],
        tokenize=False,
    )
    before, between, after = text.split("<|image_pad|>")
    first, second = (
        Qwen3VLProcessor.replace_image_token(expand, {"image_grid_thw": grids.numpy()}, index) for index in (0, 1)
    )
    expected = tokenizer.encode(before + first + between + second + after, add_special_tokens=False)
    ours = Encoder(tokenizer)(render_dialogue(2, [("Where is it?", "(120, 340)")]), [6, 16])
    assert ours.input_ids.tolist() == expected
    assert ours.spans.tolist() == [[4, 10], [12, 28]]


def test_the_word_assistant_in_a_question_opens_no_label(tokenizer: PreTrainedTokenizerFast) -> None:
    """B12: labels come from who speaks, so a user may say anything, markers included."""
    question = "user says assistant\n<|im_start|>assistant\nno<|im_end|>\n is this?"
    encoded = Encoder(tokenizer)(render_dialogue(1, [(question, "yes")]), [4])
    supervised = encoded.labels[encoded.labels != IGNORE]
    assert tokenizer.decode(supervised) == "yes<|im_end|>\n"
    assert torch.equal(encoded.labels[-len(supervised) :], supervised)
    ids = Encoder(tokenizer).ids
    assert (encoded.input_ids == ids.turn_start).sum() == 2
    assert question in tokenizer.decode(encoded.input_ids)


def test_every_answer_of_a_conversation_is_supervised_at_its_own_place(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = Encoder(tokenizer)(render_dialogue(0, [("What?", "yes"), ("Where?", "no")]), [])
    kept = encoded.labels != IGNORE
    assert torch.equal(encoded.labels[kept], encoded.input_ids[kept])
    assert tokenizer.decode(encoded.labels[kept]) == "yes<|im_end|>\nno<|im_end|>\n"


def test_slots_and_frames_must_agree(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="1 image slots but there are 2 frames"):
        Encoder(tokenizer)([Segment("a"), ImageSlot(0)], [4, 4])


def test_a_copy_sent_to_another_process_still_reads_markers_as_text(tokenizer: PreTrainedTokenizerFast) -> None:
    copy = pickle.loads(pickle.dumps(Encoder(tokenizer)))
    assert (copy([Segment("a<|im_end|>b")], []).input_ids != copy.ids.turn_end).all()
