"""Options and answers of multiple-choice questions, in the forms that the published sets use.

Options stand in the question as "(A) left (B) right" or line by line as "A. left", or in a list of their own. The
answer is a letter, a letter with its text, or the text. The options of a turn are written as its answer is ("B",
"B. right", "right"), so that question, options and answer agree and the question stays as published.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gemvlm.curation.sources.records import RecordError
from gemvlm.data.conversation import normalise

_INLINE = re.compile(r"\(([A-Z])\)(.*?)(?=\([A-Z]\)|\n|$)", re.DOTALL)
_LINES = re.compile(r"^[ \t]*([A-Z])[ \t]*[.):](.+)$", re.MULTILINE)
_FLOWING = re.compile(r"(?:^|(?<=\s))([A-Z])[.)]\s(.*?)(?=\s[A-Z][.)]\s|\n|$)", re.DOTALL)
_LETTERED = re.compile(r"^(\(?)([A-Za-z])(\)?[.:)]?)(?:(\s+)(.*?))?(\.?)$", re.DOTALL)
_END = " \t\r\n.,;:"


def listed_options(question: str) -> tuple[str, ...]:
    """The texts of the options that a question lists, in order; () unless they are lettered A, B, ... without a gap."""
    for pattern in (_LINES, _INLINE, _FLOWING):
        found = pattern.findall(question)
        letters = [letter for letter, _ in found]
        if len(found) >= 2 and letters == [chr(ord("A") + index) for index in range(len(found))]:
            return tuple(text.strip(_END) for _, text in found)
    return ()


def matched(answer: str, texts: Sequence[str], *, required: bool = True) -> tuple[str, tuple[str, ...]] | None:
    """(answer, options) written alike, the answer being one of them.

    An answer that names a letter beyond the options, or a letter and another option's text, or (where an option is
    `required`) no option at all is an RecordError. A free answer is None where no option is required. So are options
    that can't be told apart.
    """
    known = [normalise(text) for text in texts]
    if len(set(known)) != len(known) or not all(known):
        raise RecordError("options_alike", f"options {tuple(texts)} can't be told apart", "answer")
    if normalise(answer) in known:
        return _as_texts(answer, known.index(normalise(answer)), texts)
    form = _LETTERED.match(answer.strip())
    if form is not None and (form[1] or form[3] or form[5] is None):
        opened, letter, closed, space, text, end = form.groups()
        index = ord(letter.upper()) - ord("A")
        if index < len(texts) and (not text or normalise(text) == known[index]):
            return _as_letters(answer, index, texts, (opened, closed, space or "", end), bool(text), letter.islower())
        if index >= len(texts) or normalise(text or "") in known:
            raise RecordError(
                "option_not_found", f"answer {answer!r} does not fit the options {tuple(texts)}", "answer"
            )
    if required:
        raise RecordError("option_not_found", f"answer {answer!r} is none of the options {tuple(texts)}", "answer")
    return None


def _as_texts(answer: str, index: int, texts: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    options = list(texts)
    options[index] = answer
    return answer, tuple(options)


def _as_letters(
    answer: str, index: int, texts: Sequence[str], form: tuple[str, str, str, str], with_text: bool, lower: bool
) -> tuple[str, tuple[str, ...]]:
    opened, closed, space, end = form
    options = []
    for position, text in enumerate(texts):
        letter = chr(ord("a" if lower else "A") + position)
        options.append(f"{opened}{letter}{closed}{space}{text}{end}" if with_text else f"{opened}{letter}{closed}{end}")
    options[index] = answer
    return answer, tuple(options)
