"""Any text encodes and comes back; integers are single tokens; special tokens are found by text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gemvlm.data.tokenizer import SPECIAL_TOKENS, SpecialIds, load_tokenizer, train_tokenizer

TOKENIZER = train_tokenizer(["Where is the red mug? It is at (12, 340).", "user assistant"], 1500)


def test_any_text_encodes_and_comes_back() -> None:
    rng = random.Random(0)
    ranges = (range(0x20, 0x7F), range(0x800), range(0xE000, 0x110000))  # without the surrogates, which are no text
    for _ in range(500):
        text = "".join(chr(rng.choice(rng.choice(ranges))) for _ in range(rng.randrange(30)))
        assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("text", ["{}", "at {}", "({}, 5)", "(5, {})", "[5,{}]", "is {} cm", "x{}y", "0.{}"])
@pytest.mark.parametrize("number", [0, 7, 30, 101, 340, 430, 999, 1000])
def test_an_integer_is_one_token_wherever_it_stands(text: str, number: int) -> None:
    pieces = TOKENIZER.tokenize(text.format(number))
    assert pieces.count(str(number)) >= 1
    assert not any(piece != str(number) and str(number) in piece for piece in pieces)


def test_a_point_takes_as_many_tokens_as_it_has_parts() -> None:
    assert TOKENIZER.tokenize("(12, 340)") == ["(", "12", ",Ġ", "340", ")"]


def test_integers_without_a_token_split_into_shorter_ones() -> None:
    small = train_tokenizer(["a"], 400, integers=range(0, 101, 10))
    assert small.tokenize("50 100 345 98765") == ["50", "Ġ", "100", "Ġ", "3", "4", "5", "Ġ", "9", "8", "7", "6", "5"]


def test_training_twice_gives_the_same_tokens() -> None:
    texts = ["one two three two", "two three one (1, 2)"]
    assert train_tokenizer(texts, 1400).get_vocab() == train_tokenizer(texts, 1400).get_vocab()


def test_words_of_the_corpus_become_single_tokens_within_the_size() -> None:
    assert TOKENIZER.tokenize(" the red mug") == ["Ġthe", "Ġred", "Ġmug"]
    assert len(TOKENIZER) <= 1500


def test_special_tokens_have_ids_of_their_own() -> None:
    ids = [TOKENIZER.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS]
    assert len(set(ids)) == len(SPECIAL_TOKENS) and None not in ids
    assert TOKENIZER.decode(TOKENIZER.encode("a<|im_end|>"), skip_special_tokens=True) == "a"
    assert SpecialIds.of(TOKENIZER).turn_end == TOKENIZER.eos_token_id


def test_the_chat_template_writes_what_the_published_one_writes() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A mug."}]},
        {"role": "user", "content": "And now?"},
    ]
    assert TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|video_pad|><|vision_end|>What?<|im_end|>\n"
        "<|im_start|>assistant\nA mug.<|im_end|>\n"
        "<|im_start|>user\nAnd now?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_saved_tokenizer_loads_as_it_was(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert loaded.chat_template == TOKENIZER.chat_template
    assert loaded.tokenize("(12, 340)<|im_end|>") == TOKENIZER.tokenize("(12, 340)<|im_end|>")


def test_a_published_folder_keeps_its_template_in_a_file_of_its_own(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    template = (tmp_path / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert load_tokenizer(tmp_path).chat_template == template


def test_a_wrong_folder_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    words = Tokenizer(models.WordLevel({"a": 0}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, chat_template="x").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks <\|im_start\|>"):
        load_tokenizer(tmp_path)


def test_too_small_a_vocabulary_is_refused_with_the_counts() -> None:
    with pytest.raises(ValueError, match="vocab_size 500 is less than 256 bytes"):
        train_tokenizer(["a"], 500)
