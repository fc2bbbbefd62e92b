"""The gate by itself: what is refused before anything is parsed, and what is held meanwhile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gemvlm.serving.gate import BODIES_AT_ONCE, Gate
from gemvlm.serving.limits import Limits

LIMITS = Limits(request_bytes=1000, upload_seconds=0.05)


class Door:
    """A gate before an application that reads its body and answers once it may."""

    def __init__(self, at_once: int = 100, key: str | None = None) -> None:
        self.seen: list[tuple[str, int]] = []
        self.bodies: list[bytes] = []
        self.open = asyncio.Event()
        self.gate = Gate(self.app, LIMITS, key, at_once, lambda path, status, _: self.seen.append((path, status)))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        await self.open.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(self, body: list[bytes], headers: dict[str, str] | None = None, path: str = "/v1/x") -> int:
        """The status of the answer to a request whose body comes in these pieces, and then no more."""
        pieces, sent = iter(body), []
        left = len(body)

        async def receive() -> Any:
            nonlocal left
            piece = next(pieces, None)
            if piece is None:
                await asyncio.sleep(60)
            left -= 1
            return {"type": "http.request", "body": piece, "more_body": left > 0 or body[-1] == b"more"}

        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        await self.gate({"type": "http", "path": path, "headers": raw}, receive, send)
        if sent[0]["status"] != 200:
            assert set(json.loads(sent[1]["body"])["error"]) == {"message", "type", "param", "code"}
        return sent[0]["status"]


def test_a_body_comes_whole_however_it_was_cut() -> None:
    async def walk() -> None:
        door = Door()
        door.open.set()
        assert await door.ask([b"ab", b"", b"cd"]) == 200
        assert door.bodies == [b"abcd"]
        assert door.seen == [("/v1/x", 200)]

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ([b"x" * 600, b"x" * 600], {}, 413),
        ([b"x"], {"content-length": "1001"}, 413),
        ([b"x"], {"content-length": "-1"}, 413),
        ([b"x", b"more"], {}, 408),
    ],
)
def test_what_is_too_large_or_too_slow(body: list[bytes], headers: dict[str, str], status: int) -> None:
    async def walk() -> None:
        door = Door()
        assert await door.ask(body, headers) == status
        assert door.bodies == []
        assert (door.gate._inside, door.gate._held) == (0, 0)

    asyncio.run(walk())


def test_keys() -> None:
    async def walk() -> None:
        door = Door(key="k")
        door.open.set()
        for headers, status in (({}, 401), ({"authorization": "Bearer x"}, 401), ({"authorization": "Bearer k"}, 200)):
            assert await door.ask([b"x"], headers) == status
        assert await door.ask([b""], path="/healthz") == 200

    asyncio.run(walk())


@pytest.mark.parametrize(("at_once", "size", "most"), [(3, 1, 3), (100, 1000, BODIES_AT_ONCE)])
def test_no_more_than_the_house_holds(at_once: int, size: int, most: int) -> None:
    async def walk() -> None:
        door = Door(at_once)
        asked = [asyncio.create_task(door.ask([b"x" * size])) for _ in range(most + 4)]
        while sum(task.done() for task in asked) < 4:
            await asyncio.sleep(0)
        door.open.set()
        statuses = sorted(await asyncio.gather(*asked))
        assert statuses == [200] * most + [429] * 4
        assert (door.gate._inside, door.gate._held) == (0, 0)

    asyncio.run(walk())


def test_other_protocols_pass() -> None:
    async def walk() -> None:
        passed = []

        async def app(scope: Any, *_: Any) -> None:
            passed.append(scope["type"])

        await Gate(app, LIMITS, "k", 1, print)({"type": "lifespan"}, None, None)
        assert passed == ["lifespan"]

    asyncio.run(walk())
