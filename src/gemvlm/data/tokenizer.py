"""Tokenizers: small ones that a recipe trains, and the published one, with the same special tokens and chat template.

A small tokenizer splits text into words (with their leading space), single punctuation marks and integers of up to four
digits; every integer that it was given is one token, so that a coordinate is one token wherever it stands. Bytes are
the fallback: any text encodes, none becomes "unknown". Special tokens are found by their text, never by a fixed id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (
    END_OF_TEXT, TURN_START, TURN_END,
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>",
    VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, VIDEO_PAD,
)  # fmt: skip
"""Qwen3-VL's, in its order."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- else -%}
        {%- for part in message.content -%}
            {%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
            {%- elif part.type == 'video' or 'video' in part -%}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
            {%- elif 'text' in part -%}
                {{- part.text -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

_INTEGER = r"\p{N}{1,4}"
_MARK_BEFORE_INTEGER = r" ?[^\s\p{L}\p{N}] (?=\p{N})"  # the space of ", 340" goes with the comma: 340 stays one token
_WORD = r" ?\p{L}+"
_MARK = r" ?[^\s\p{L}\p{N}]"
_SPACE = r"\s+(?!\S)|\s"
PIECES = "|".join((_INTEGER, _MARK_BEFORE_INTEGER, _WORD, _MARK, _SPACE))
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the tokens that structure a conversation."""

    turn_start: int
    turn_end: int
    vision_start: int
    vision_end: int
    image_pad: int
    end_of_text: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> SpecialIds:
        """Looks the tokens up by text; ValueError names those that the tokenizer lacks."""
        texts = (TURN_START, TURN_END, VISION_START, VISION_END, IMAGE_PAD, END_OF_TEXT)
        vocabulary = tokenizer.get_vocab()
        missing = [text for text in texts if text not in vocabulary]
        if missing:
            raise ValueError(f"tokenizer lacks {', '.join(missing)}; use Qwen3-VL's or train one with train_tokenizer")
        return cls(*(vocabulary[text] for text in texts))


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, integers: Iterable[int] = range(1001)
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens, special ones and one for each of `integers` included.

    Which integers occur in `texts` does not matter: those asked for are tokens, and so are "00" to "09" (as in "0.05");
    others split into shorter ones.
    ValueError if `vocab_size` leaves no room for the bytes, the integers and the special tokens.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    wanted = [*(str(integer) for integer in integers), *(f"0{digit}" for digit in range(10))]
    numbers = [text for text in dict.fromkeys(wanted) if text not in alphabet]
    learned = vocab_size - len(numbers) - len(SPECIAL_TOKENS)
    if learned < len(alphabet):
        raise ValueError(
            f"vocab_size {vocab_size} is less than {len(alphabet)} bytes + {len(numbers)} integers + "
            f"{len(SPECIAL_TOKENS)} special tokens; raise it or ask for fewer integers"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=learned, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator((_DIGITS.sub("0", text) for text in texts), trainer)
    return _wrapped(_with_integers(tokenizer, numbers))


def _with_integers(tokenizer: Tokenizer, numbers: list[str]) -> Tokenizer:
    """Adds whole numbers to the vocabulary; a piece that is in the vocabulary is taken as it is, without merges."""
    definition = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = definition["model"]["vocab"]
    vocabulary.update({number: len(vocabulary) + i for i, number in enumerate(numbers)})
    definition["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(definition))


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
    others = [token for token in SPECIAL_TOKENS if token not in (TURN_END, END_OF_TEXT)]
    wrapped.add_special_tokens({"additional_special_tokens": others})
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint folder, ours or a published Qwen3-VL's, with its own chat template.

    Needs `tokenizer.json`; the template is in `chat_template.jinja`, `chat_template.json` or `tokenizer_config.json`.
    No processor is built (that would need torchvision). ValueError names the folder and what is missing.
    """
    folder = Path(folder)
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: no tokenizer.json; give the folder of a saved checkpoint")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    separate = folder / "chat_template.json"
    if tokenizer.chat_template is None and separate.is_file():
        tokenizer.chat_template = json.loads(separate.read_text())["chat_template"]
    if tokenizer.chat_template is None:
        raise ValueError(f"{folder}: no chat template; copy chat_template.jinja of the published folder there")
    try:
        SpecialIds.of(tokenizer)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return tokenizer
