"""How VLMEvalKit's spatial benchmarks (those of the EASI leaderboard) read a letter or a number out of a reply.

The rule: open-compass/VLMEvalKit, vlmeval/dataset/utils/spatial_bench/matching_func.py, commit 160057c. Its other
benchmarks read with `choices.vlmevalkit_option`.
"""

from __future__ import annotations

import ast
import re

TAIL_LINES, TAIL_CHARACTERS = 6, 800
LONGEST_LIST = 1000
WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip

_ZERO_WIDTH = re.compile("[\u200b\u200c\u200d\ufeff]")
_TAGGED_LETTER = re.compile(r"<\s*answer\b[^>]*>\s*([A-J]).*<\s*/\s*answer\s*>", re.IGNORECASE | re.DOTALL)
_BEFORE_TAG = [
    re.compile(rf"(?<![a-z])([A-F])\s*(?:[)\]}}）】]\s*)?</\s*{tag}\s*>", re.IGNORECASE) for tag in ("answer", "think")
]
_LISTED = re.compile(r"[*_>\-\s]*(?:option|选项)\s+[A-J]\s*[:：]", re.IGNORECASE)
_LONE = re.compile(r"[*_`>（）\[\]【】()]*\s*([A-Fa-f])\s*[*_`（）\[\]【】()]*")
_LABEL = re.compile(r"([A-F])\s*[.．:：)\]】、-]\s", re.IGNORECASE)
_INLINE = re.compile(r"(?<![A-Za-z])([A-F])\s*[*_`}]*(?=$|[\s.,:;!?)\]】》」』，。；、：）])")
_PHRASE = re.compile(
    r"(?:answer(?:\s*is)?|答案|结论|所以|因此|选择?)\s*(?:[:：>＝=]\s*)?(?:[(\[{（【]\s*)?([A-F])\b", re.IGNORECASE
)
_ANYWHERE = re.compile(r"(?<![A-Za-z])([A-F])(?![A-Za-z])")
_DIGITS = r"[-+]?(?:\d*\.\d+|\d+)(?:[eE][-+]?\d+)?"
_NUMBER = re.compile(_DIGITS)
_TAGGED_NUMBER = re.compile(rf"<\s*answer\b[^>]*>\s*({_DIGITS})[^<]*<\s*/\s*answer\s*>", re.IGNORECASE)
_WORD = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)


def vlmevalkit_spatial_letter(reply: str) -> str | None:
    """The first that is found: the letter that opens an answer tag (even one of a word); that before a closing answer
    or thought; from the bottom up in the last lines after a thought, then of the whole, the letter that is a line,
    labels one, or is the only lone capital in it; after words like "answer is"; the only lone capital of all.
    """
    text = _ZERO_WIDTH.sub("", reply.strip())
    if tagged := _TAGGED_LETTER.search(text):
        return tagged[1].upper()
    for before in _BEFORE_TAG:
        if found := before.search(text[-TAIL_CHARACTERS:]):
            return found[1].upper()
    letter = _from_last_lines(_after_thought(text)) or _from_last_lines(text[-TAIL_CHARACTERS:])
    if letter:
        return letter
    if said := _PHRASE.search(text):
        return said[1].upper()
    lines = [line for line in text.splitlines() if not _LISTED.match(line)]
    return _only(_ANYWHERE.findall("\n".join(lines)))


def vlmevalkit_spatial_number(reply: str) -> float | None:
    """The number that opens an answer tag, else the last one after a thought, else the last of all.

    Words up to twenty are numbers ("twenty-one" is 20, then -1). Of a reply that is a list the first element is read.
    """
    text = reply
    if text.strip().startswith("[") and text.strip().endswith("]"):
        try:
            listed = ast.literal_eval(text) if len(text) <= LONGEST_LIST else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
        text = str(listed[0]) if isinstance(listed, list) and listed else text
    text = _WORD.sub(lambda word: str(WORDS.index(word[0].lower())), _ZERO_WIDTH.sub("", text))
    if tagged := _TAGGED_NUMBER.search(text):
        return float(tagged[1])
    numbers = _NUMBER.findall(_after_thought(text)) or _NUMBER.findall(text)
    return float(numbers[-1]) if numbers else None


def _after_thought(text: str) -> str:
    """What follows the last closing think tag, or else the last opening one; all of it without either."""
    for tag in (r"</\s*think\s*>", r"<\s*think\s*>"):
        if ends := [found.end() for found in re.finditer(tag, text, re.IGNORECASE)]:
            return text[ends[-1] :]
    return text


def _from_last_lines(text: str) -> str | None:
    for line in reversed([line.strip() for line in text.splitlines()[-TAIL_LINES:]]):
        if not line or _LISTED.match(line):
            continue
        if found := _LONE.fullmatch(line) or _LABEL.match(line):
            return found[1].upper()
        if letter := _only(_INLINE.findall(line)):
            return letter
    return None


def _only(letters: list[str]) -> str | None:
    return letters[0] if len(set(letters)) == 1 else None
