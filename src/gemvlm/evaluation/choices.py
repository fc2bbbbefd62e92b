"""The published ways of reading a letter or a number out of a reply, each named after the harness that reads so.

The same reply scores differently under different readers ("The answer is B" is no answer to the first), so a protocol
names its reader. None is "could not be read". What reads one benchmark only stands in that benchmark's file. Sources:
vision-x-nyu/thinking-in-space `lmms_eval/tasks/vsibench/utils.py` (e6a72f3), open-compass/VLMEvalKit
`vlmeval/utils/matching_util.py` (134b4ea, whose one comparison stands the wrong way round: read as its copies have it),
XiaomiMiMo/MiMo-Embodied `lmms_eval/tasks/_task_utils/eval_utils.py` (d273692), and the README of MMSI-Bench.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite

LONGEST_REPLY = 50_000
UNITS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)")
_BOX = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_MARKS = (re.compile(r"``([^`]*)``"), re.compile(r"`([^`]*)`"), re.compile(r"\{([^}]*)\}"))


def thinking_in_space_word(reply: str) -> str:
    """What stands before the first space, without full stops at its end: "B." is "B", "3 chairs" is "3"."""
    return reply.split(" ")[0].rstrip(".").strip()


def thinking_in_space_number(reply: str) -> float | None:
    """The first word as Python's float reads it: "3", "3.5", "1e3"; "About 3" is none. NaN and infinity are none."""
    try:
        value = float(thinking_in_space_word(reply))
    except ValueError:
        return None
    return value if isfinite(value) else None


def vlmevalkit_option(reply: str, options: Mapping[str, str]) -> str | None:
    """VLMEvalKit's `can_infer` without its judge; `options` are text by letter. "Z" is a refusal.

    With `.()[],:;!*#{}` as spaces: the letter, if exactly one of them is a word and is among the last four; else the
    option whose text is in the reply, if it is one only and the reply is at most twice as long as all options.
    """
    if "Failed to obtain answer via API" not in reply:
        if any(refusal in reply for refusal in _REFUSALS):
            return "Z"
        words = re.sub(r"[.()\[\],:;!*#{}]", " ", reply).split()
        named = [letter for letter in options if letter in words]
        if len(named) == 1 and words.index(named[0]) > len(words) - 5:
            return named[0]
        if not named and "Z" in words:
            return "Z"
    text = reply.lower()
    if len(text) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, option in options.items() if option.lower() in text]
    return found[0] if len(found) == 1 else None


def mimo_boxed(reply: str) -> str:
    """What is in the last `\\boxed{...}`, in which braces may be nested once; the whole reply if there is none."""
    found = _BOX.findall(reply[:LONGEST_REPLY])
    return str(found[-1]) if found else reply


def mimo_after_thought(reply: str) -> str:
    """What follows the last `</think>`, stripped; the reply as it is if there is none."""
    _, closing, rest = reply.rpartition("</think>")
    return rest.strip() if closing else reply


def cosmos_answer(reply: str) -> str | None:
    """What is in the first `<answer>` tag, stripped."""
    _, opening, rest = reply[:LONGEST_REPLY].partition("<answer>")
    said, closing, _ = rest.partition("</answer>")
    return said.strip() if opening and closing else None


def first_capital(reply: str, letters: str = "ABCD") -> str | None:
    """The first of `letters` anywhere in the reply, words included: "Apple" is "A"."""
    return next((character for character in reply if character in letters), None)


def mmsi_letter(reply: str, letters: str = "A-D") -> str | None:
    """In double back-ticks, else in single ones, else in braces; of that the first lone capital of `letters`.

    A letter with a word after it is no answer ("A bike"). `letters` is a range of a regular expression.
    """
    text = reply[:LONGEST_REPLY]
    for marks in _MARKS:
        if found := marks.search(text):
            text = found[1]
    letter = re.search(rf"\b[{letters}]\b(?!\s[a-zA-Z])", text)
    return letter[0] if letter else None


def first_number(reply: str) -> float | None:
    """The first number anywhere in the reply (FlagEvalMM, SPAR-Bench's single views)."""
    found = _NUMBER.search(reply[:LONGEST_REPLY])
    return float(found[0]) if found else None


def last_number(reply: str) -> float | None:
    """The last number of the reply (SPAR-Bench's several views; VLMEvalKit after a thought is cut)."""
    found = _NUMBER.findall(reply[:LONGEST_REPLY])
    return float(found[-1]) if found else None


def number_in_words(words: str) -> int | None:
    """An English number below a million: "twenty-one", "three hundred", "two thousand and five"; None if it is none."""
    total, current, seen = 0, 0, False
    for word in re.split(r"[\s-]+", words.lower().strip()):
        if word in UNITS or word in TENS:
            current += UNITS.get(word, TENS.get(word, 0))
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word == "thousand":
            total, current = total + max(current, 1) * 1000, 0
        elif word != "and" or not seen:
            return None
        seen = True
    return total + current if seen else None
