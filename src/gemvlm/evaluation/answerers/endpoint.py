"""Anything that speaks the OpenAI protocol answers: vLLM, SGLang, llama.cpp, a provider.

`POST URL/chat/completions` with pictures as data URLs, temperature 0. A timeout, a refusal, rubbish or a reply without
text is tried again with back-off where that can help, and is then the item's failure. After many failures in a row the
endpoint is given up: the rest fails at once instead of waiting hours for a server that is gone.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gemvlm.evaluation.answerers.answerer import IMAGE_MARK, Reply, marked_per_frame
from gemvlm.evaluation.answerers.media import Picture, frames_of, shown
from gemvlm.evaluation.benchmark import Benchmark, Convention, Item, Media
from gemvlm.runtime import secret

PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""HTTP states that another try may cure."""
LARGEST_ANSWER = 4 * 2**20
KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Patience:
    """How long to wait for an answer, how often to try, how long between tries, and when to give the endpoint up."""

    timeout_s: float = 120.0
    tries: int = 4
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    give_up_after: int = 20


class EndpointAnswerer:
    """`model` at the endpoint `url` ("http://localhost:8000/v1"), asked `batch_size` items at a time.

    The key, if one is needed, is read from the environment variable OPENAI_API_KEY and is written nowhere.
    """

    def __init__(
        self,
        url: str,
        model: str,
        name: str,
        convention: Convention,
        *,
        patience: Patience | None = None,
        batch_size: int = 8,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.model, self.name = url.rstrip("/"), model, name
        self.convention, self.batch_size = convention, batch_size
        self.patience = patience or Patience()
        self._sleep = sleep
        self._failures_in_a_row = 0
        self._lock = threading.Lock()

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "endpoint", "url": self.url, "model": self.model, "decoding": "temperature 0"}

    def meet(self, benchmark: Benchmark, items: Sequence[Item]) -> None:
        pass

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        with ThreadPoolExecutor(max_workers=self.batch_size) as pool:
            return list(pool.map(self._reply, items))

    def _reply(self, item: Item) -> Reply:
        with self._lock:
            given_up = self._failures_in_a_row >= self.patience.give_up_after
        if given_up:
            return Reply(failure=f"the endpoint was given up after {self.patience.give_up_after} failures in a row")
        try:
            body, frames = self._body(item)
        except ValueError as error:
            return Reply(failure=str(error))
        failure = ""
        for attempt in range(self.patience.tries):
            if attempt:
                self._sleep(min(self.patience.first_wait_s * 2 ** (attempt - 1), self.patience.longest_wait_s))
            try:
                text = self._ask(body)
            except _HopelessError as error:
                failure = str(error)
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                failure = f"{type(error).__name__}: {error}"
                continue
            with self._lock:
                self._failures_in_a_row = 0
            return Reply(text, frames=frames)
        with self._lock:
            self._failures_in_a_row += 1
        return Reply(failure=failure, frames=frames)

    def _body(self, item: Item) -> tuple[bytes, int]:
        pictures = frames_of(item)
        urls = iter([
            _data_url(media, picture)
            for media, own in zip(item.media, pictures, strict=True)
            for picture in own
        ])  # fmt: skip
        counts = [len(own) for own in pictures]
        text = item.prompt if IMAGE_MARK in item.prompt else IMAGE_MARK * len(counts) + item.prompt
        content: list[dict[str, Any]] = []
        for index, piece in enumerate(marked_per_frame(text, counts).split(IMAGE_MARK)):
            content += [{"type": "image_url", "image_url": {"url": next(urls)}}] if index else []
            content += [{"type": "text", "text": piece}] if piece else []
        system = [{"role": "system", "content": item.system}] if item.system else []
        request = {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": content}],
            "max_tokens": item.max_new_tokens,
            "temperature": 0,
        }
        return json.dumps(request).encode(), shown(pictures)

    def _ask(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        if key := secret(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url}/chat/completions", body, headers)
        try:
            with _OPENER.open(request, timeout=self.patience.timeout_s) as response:
                content = response.read(LARGEST_ANSWER + 1)
        except urllib.error.HTTPError as error:
            told = error.read(300).decode("utf-8", "replace")
            kind = OSError if error.code in PASSING else _HopelessError
            raise kind(f"HTTP {error.code}: {told}") from error
        if len(content) > LARGEST_ANSWER:
            raise ValueError(f"an answer of more than {LARGEST_ANSWER} bytes")
        try:
            text = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"no chat completion: {content[:200]!r}") from error
        if not isinstance(text, str):
            raise ValueError(f"an answer without text: {content[:200]!r}")
        return text


class _HopelessError(Exception):
    """A refusal that another try won't change."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An endpoint that moved is told, not followed: the key must not go to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _data_url(media: Media, picture: Picture) -> str:
    """The publisher's own JPEG or PNG bytes where it is one, else PNG: nothing is compressed again."""
    content = b"" if media.kind == "video" else media.content
    content = content if isinstance(content, bytes) else content.read_bytes()
    kind = "jpeg" if content.startswith(b"\xff\xd8\xff") else "png" if content.startswith(b"\x89PNG") else ""
    if not kind:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        kind, content = "png", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
