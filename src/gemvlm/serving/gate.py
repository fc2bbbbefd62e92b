"""What stands before the routes: who may come in, how many at once, how large and how slow a request may be.

The key is looked at before the body is read, and a body is read in pieces, up to the limit, before anything parses it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from gemvlm.serving.limits import Limits, Refusal, printable

Receive = Callable[[], Any]
BODIES_AT_ONCE = 16
"""Requests of the largest size whose bodies may lie in memory together; smaller ones may be more."""
OPEN_PATHS = ("/healthz", "/readyz")
"""Answered without a key: those who ask are machines that hold none."""

ERROR_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class Gate:
    """ASGI middleware. `seen(path, status, seconds)` hears of every answer."""

    def __init__(
        self, app: Any, limits: Limits, key: str | None, at_once: int, seen: Callable[[str, int, float], None]
    ) -> None:
        self.app, self.limits, self.at_once, self.seen = app, limits, at_once, seen
        self._key = None if key is None else key.encode()
        self._inside = self._held = 0

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 499

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._enter(scope, receive, noted)
        finally:
            self.seen(scope["path"], status, time.monotonic() - began)

    async def _enter(self, scope: Any, receive: Receive, send: Any) -> None:
        headers = dict(scope["headers"])
        try:
            self._admit(scope["path"], headers)
            if scope["path"] in OPEN_PATHS:
                await self.app(scope, receive, send)
                return
            pieces: list[bytes] = []
            self._inside += 1
            try:
                await self._read(headers, receive, pieces)
                await self.app(scope, _replayed(b"".join(pieces), receive), send)
            finally:
                self._inside -= 1
                self._held -= sum(map(len, pieces))
        except Refusal as refusal:
            await _send(send, refusal)

    def _admit(self, path: str, headers: dict[bytes, bytes]) -> None:
        if path in OPEN_PATHS:
            return
        if self._key is not None:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._key):
                raise Refusal(
                    "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'",
                    status=401,
                    code="invalid_api_key",
                )
        if self._inside >= self.at_once:
            raise self._busy()

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, pieces: list[bytes]) -> None:
        """Reads the body into `pieces`, counting what it and the others hold."""
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > self.limits.request_bytes:
            raise self._too_large()
        size = 0
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal("the request was broken off", status=400, code="disconnected")
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    self._held += len(pieces[-1])
                    if size > self.limits.request_bytes:
                        raise self._too_large()
                    if self._held > BODIES_AT_ONCE * self.limits.request_bytes:
                        raise self._busy()
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            raise Refusal(
                f"the request did not arrive within {self.limits.upload_seconds:g} s", status=408, code="upload_timeout"
            ) from None

    def _busy(self) -> Refusal:
        return Refusal(
            f"{self._inside} requests of {self._held:,} bytes are being served; try again in 1 s",
            status=429,
            code="rate_limit_exceeded",
            wait_s=1,
        )

    def _too_large(self) -> Refusal:
        return Refusal(
            f"the request has more than {self.limits.request_bytes:,} bytes; send smaller or fewer images",
            status=413,
            code="request_too_large",
        )


def error_body(refusal: Refusal) -> dict[str, Any]:
    """A refusal in OpenAI's form."""
    fallback = "server_error" if refusal.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": printable(refusal.message),
            "type": ERROR_TYPES.get(refusal.status, fallback),
            "param": None if refusal.param is None else printable(refusal.param),
            "code": refusal.code,
        }
    }


def error_headers(refusal: Refusal) -> dict[str, str]:
    headers = {"Retry-After": str(refusal.wait_s)} if refusal.wait_s else {}
    return headers | ({"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then whatever comes (a disconnection)."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Any:
        return waiting.pop() if waiting else await receive()

    return next_message


async def _send(send: Any, refusal: Refusal) -> None:
    content = json.dumps(error_body(refusal)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content)), **error_headers(refusal)}
    if refusal.status in (408, 413, 429):
        headers["connection"] = "close"  # the rest of the body is not read
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": content})
