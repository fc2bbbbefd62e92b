"""An annotator behind any OpenAI-compatible endpoint: POST BASE_URL/chat/completions, one reply per request.

Form of request and reply: the chat completions of openai/openai-openapi (`openapi.yaml`), which vLLM, llama.cpp, Ollama
and others serve: `model`, `messages`, `temperature`, `max_tokens`, `seed` → `choices[0].message.content`. Plain
http.client: no redirects are followed, so that the key goes to no other host.

Replies are kept in a folder by the SHA-256 of everything that they depend on: a re-run asks nothing twice, and gives
the same bytes even of a model that samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

Message = dict[str, Any]
"""{"role": "user", "content": ...} as the endpoint takes it."""

TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
CHUNK = 1 << 16

DOWN = ("no_connection", "endpoint_down", "http_401", "http_403", "http_404")
"""Failures that are the endpoint's and no single request's: whoever has much to ask had better stop."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask. The key is read from the environment variable `key_variable`, if that is set; it is written
    nowhere. `timeout_s` is for a whole reply, however slowly it comes; waits between tries double from `backoff_s`.

    After `give_up_after` failures in a row every further request fails at once: the endpoint is down.
    """

    base_url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout_s: float = 60.0
    tries: int = 4
    backoff_s: float = 1.0
    most_backoff_s: float = 30.0
    max_reply_bytes: int = 1 << 20
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    concurrency: int = 8
    give_up_after: int = 20

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError(f"annotator: base_url {self.base_url!r} must be http(s)://HOST[:PORT]/PATH without a key")
        if min(self.tries, self.concurrency, self.max_reply_bytes, self.give_up_after) < 1 or self.timeout_s <= 0:
            raise ValueError("annotator: tries, concurrency, max_reply_bytes, give_up_after and timeout_s must be > 0")


@dataclass(frozen=True)
class Reply:
    """What came back: text, or (`text` None) a short code for why nothing usable did."""

    text: str | None
    failure: str = ""
    detail: str = ""
    cached: bool = False


class Annotator:
    """Asks an endpoint, several requests at a time, and remembers the replies in `cache`. Safe to use from threads."""

    def __init__(self, endpoint: Endpoint, cache: Path | str) -> None:
        self.endpoint = endpoint
        self.cache = Path(cache)
        self.requests = 0
        self._failures = 0
        self._lock = Lock()

    def ask_many(self, requests: Sequence[Sequence[Message]]) -> list[Reply]:
        """The replies in the order of the requests, whatever the order of their coming."""
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            return list(pool.map(self.ask, requests))

    def ask(self, messages: Sequence[Message]) -> Reply:
        """One reply. It never raises for what the endpoint does; only successes are remembered."""
        endpoint = self.endpoint
        body = {
            "model": endpoint.model,
            "messages": list(messages),
            "temperature": endpoint.temperature,
            "max_tokens": endpoint.max_tokens,
            "seed": endpoint.seed,
        }
        content = json.dumps(body, sort_keys=True).encode()
        remembered = self._path(content)
        if (text := _remembered(remembered)) is not None:
            return Reply(text, cached=True)
        if self._failures >= endpoint.give_up_after:
            return Reply(None, "endpoint_down", f"{self._failures} failures in a row; see the earlier ones")
        reply = Reply(None, "not_asked")
        for attempt in range(endpoint.tries):
            reply, wait_s = self._try(content)
            if wait_s is None:
                break
            if attempt + 1 < endpoint.tries:
                time.sleep(min(max(wait_s, endpoint.backoff_s * 2**attempt), endpoint.most_backoff_s))
        with self._lock:
            self._failures = 0 if reply.text is not None else self._failures + 1
        if reply.text is not None:
            _remember(remembered, reply.text)
        return reply

    def _try(self, content: bytes) -> tuple[Reply, float | None]:
        """A reply, and how long the endpoint wants us to wait (0 or more) if trying again may help, else None."""
        with self._lock:
            self.requests += 1
        try:
            status, payload, wait_s = self._post(content)
        except TimeoutError:
            return Reply(None, "timeout", f"no whole reply within {self.endpoint.timeout_s:g} s"), 0.0
        except _TooLargeError:
            return Reply(None, "too_large", f"more than {self.endpoint.max_reply_bytes} bytes"), None
        except (OSError, HTTPException, ValueError) as error:
            return Reply(None, "no_connection", f"{type(error).__name__}: {error}"), 0.0
        if status != 200:
            start = payload[:200].decode("utf-8", "replace")
            return Reply(None, f"http_{status}", start), wait_s if status in TRY_AGAIN else None
        return _reply(payload), None

    def _post(self, content: bytes) -> tuple[int, bytes, float]:
        from gemvlm.runtime import secret  # torch comes with it

        parts = urlsplit(self.endpoint.base_url)
        deadline = time.monotonic() + self.endpoint.timeout_s
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := secret(self.endpoint.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(str(parts.hostname), parts.port, timeout=self.endpoint.timeout_s)
        try:
            connection.request("POST", parts.path.rstrip("/") + "/chat/completions", content, headers)
            response = connection.getresponse()
            try:
                wait_s = max(0.0, float(response.headers.get("Retry-After", 0)))
            except ValueError:
                wait_s = 0.0
            return response.status, self._read(connection, response, deadline), wait_s
        finally:
            connection.close()

    def _read(self, connection: HTTPConnection, response: HTTPResponse, deadline: float) -> bytes:
        payload = bytearray()
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if connection.sock is not None:
                connection.sock.settimeout(left)
            block = response.read1(CHUNK)
            if not block:
                return bytes(payload)
            payload += block
            if len(payload) > self.endpoint.max_reply_bytes:
                raise _TooLargeError

    def _path(self, content: bytes) -> Path:
        name = hashlib.sha256(content).hexdigest()
        return self.cache / name[:2] / f"{name}.json"


class _TooLargeError(Exception):
    pass


def _reply(payload: bytes) -> Reply:
    try:
        text = json.loads(payload)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        start = payload[:200].decode("utf-8", "replace")
        return Reply(None, "not_a_completion", f"{type(error).__name__}: {error}; it begins {start!r}")
    if not isinstance(text, str) or not text.strip():
        return Reply(None, "no_text", "the reply's content is empty or no text")
    return Reply(text)


def _remembered(path: Path) -> str | None:
    try:
        text = json.loads(path.read_bytes())["text"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) else None


def _remember(path: Path, text: str) -> None:
    """Whole or not at all, whoever else writes the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}")
    draft.write_text(json.dumps({"text": text}))
    draft.replace(path)
