"""A conversation as it came over the wire → the prompt that the model reads, pictures decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gemvlm.data.collate import Prompt
from gemvlm.data.conversation import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from gemvlm.sample import Frame
from gemvlm.serving.limits import Limits, Refusal
from gemvlm.serving.messages import ImagePart, Message


def prompt_of(messages: Sequence[Message], limits: Limits, frame: Callable[[str, str], Frame]) -> Prompt:
    """System text first, then questions and answers in turn; messages of one speaker in a row are one, by lines.

    Pictures stand in any question, each at its place. `frame(url, field)` reads one. Refusal names the message that is
    wrong.
    """
    if len(messages) > limits.messages:
        raise Refusal(f"{len(messages)} messages are more than {limits.messages}", param="messages")
    _check_counts(messages, limits)
    frames: list[Frame] = []
    turns: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        field = f"messages.{number}.content"
        role = "system" if message.role == "developer" else message.role
        if role == "system" and turns and turns[-1][0] != "system":
            raise Refusal(f"{field}: system text must come before the conversation", param=field)
        text = _text(message, field, frames, frame)
        if turns and turns[-1][0] == role:
            turns[-1] = (role, turns[-1][1] + "\n" + text)
        else:
            turns.append((role, text))
    return _prompt(frames, turns)


def _prompt(frames: list[Frame], turns: list[tuple[str, str]]) -> Prompt:
    system = turns.pop(0)[1] if turns[0][0] == "system" else None
    expected = ["user", "assistant"] * len(turns)
    if len(turns) % 2 == 0 or any(role != wanted for (role, _), wanted in zip(turns, expected, strict=False)):
        raise Refusal(
            "messages: a conversation is user, assistant, user, ... and ends with the user who asks", param="messages"
        )
    texts = [text for _, text in turns]
    if not all(text.strip() for text in texts):
        raise Refusal("messages: one has neither words nor a picture", param="messages")
    history = tuple(zip(texts[0:-1:2], texts[1::2], strict=True))
    return Prompt(frames, texts[-1], history, system)


def _check_counts(messages: Sequence[Message], limits: Limits) -> None:
    """Refuses too many pictures or too much text before any of it is decoded."""
    pictures = characters = 0
    for message in messages:
        parts = [message.content] if isinstance(message.content, str) else message.content
        pictures += sum(isinstance(part, ImagePart) for part in parts)
        characters += sum(len(part if isinstance(part, str) else getattr(part, "text", "")) for part in parts)
    if pictures > limits.images:
        raise Refusal(
            f"messages: {pictures} pictures are more than {limits.images}", status=413, code="too_many_images"
        )
    if characters > limits.text_characters:
        raise Refusal(
            f"messages: {characters:,} characters are more than {limits.text_characters:,}",
            status=413,
            code="context_length_exceeded",
            param="messages",
        )


def _text(message: Message, field: str, frames: list[Frame], frame: Callable[[str, str], Frame]) -> str:
    """The text of a message with a placeholder where each picture stands; the pictures go to `frames`.

    Parts of text that follow each other are lines of their own.
    """
    if isinstance(message.content, str):
        return plain(message.content, field)
    pieces = []
    for place, part in enumerate(message.content):
        own = f"{field}.{place}"
        if not isinstance(part, ImagePart):
            follows_text = place > 0 and not isinstance(message.content[place - 1], ImagePart)
            pieces.append(("\n" if follows_text else "") + plain(part.text, own))
        elif message.role != "user":
            raise Refusal(
                f"{own}: only the user shows pictures; move it into a message of the user",
                code="image_not_of_user",
                param=own,
            )
        else:
            pieces.append(IMAGE_PLACEHOLDER)
            frames.append(frame(part.image_url.url, own))
    return "".join(pieces)


def plain(text: str, field: str) -> str:
    """Text that may go to a tokenizer. Refusal for halves of characters and for the placeholders of pictures."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal(f"{field}: a character is cut in half (a lone surrogate)", param=field) from None
    for placeholder in (IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER):
        if placeholder in text:
            raise Refusal(f"{field}: {placeholder} stands for a picture and can't be written; reword it", param=field)
    return text
