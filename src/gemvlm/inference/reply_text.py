"""Tokens of a reply → its text, piece by piece, each as soon as it is certain."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

UNFINISHED = "\ufffd"
"""What a tokenizer writes for the bytes of half a character."""


class ReplyText:
    """The pieces that `add` gives, joined with `rest`, are `text`: the whole reply without spaces around it.

    A token may end within a character, and spaces at the end of a reply are dropped: both wait for what follows them.
    Work per token does not grow with the reply: byte-level tokens decode on their own wherever a character ends.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.text = ""
        self._tokenizer = tokenizer
        self._pending: list[int] = []
        self._spaces = ""

    def add(self, token: int) -> str:
        """The piece that became certain by this token, "" if none did."""
        self._pending.append(token)
        words = str(self._tokenizer.decode(self._pending, skip_special_tokens=True))
        if words.endswith(UNFINISHED):
            return ""
        self._pending.clear()
        return self._said(words)

    def rest(self) -> str:
        """What was held back, once no token will follow."""
        words = str(self._tokenizer.decode(self._pending, skip_special_tokens=True))
        self._pending.clear()
        return self._said(words)

    def _said(self, words: str) -> str:
        words = self._spaces + words
        if not self.text:
            words = words.lstrip()
        piece = words.rstrip()
        self._spaces = words[len(piece) :]
        self.text += piece
        return piece
