"""A real server under more than it can do: every request is answered, late ones by 429, and nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs gemvlm[serve]")
pytest.importorskip("prometheus_client", reason="the server needs gemvlm[serve]")

from gemvlm.depth_map import DepthMap
from gemvlm.inference import DepthPrediction, GemPipeline
from gemvlm.serving.limits import Limits, Refusal
from gemvlm.serving.service import ServerConfig, Service

SECONDS_EACH = 0.05
PATIENCE_S = 30.0
Running = Callable[..., contextlib.AbstractContextManager[tuple[str, Any, Any]]]


class Slow(GemPipeline):
    """Takes a stated time for each depth, whatever the machine is busy with."""

    seconds_each = SECONDS_EACH

    def depth_batch(self, images: Any, **_: Any) -> list[DepthPrediction]:
        time.sleep(self.seconds_each * len(images))
        depth = DepthMap.from_values(np.full((8, 8), 1.5, np.float32), source="slow")
        picture = np.zeros((8, 8, 3), np.uint8)
        return [DepthPrediction(depth, np.ones((8, 8), np.float32), picture) for _ in images]


@pytest.fixture
def slow(nano: GemPipeline) -> Slow:
    return Slow(nano.gem, nano.tokenizer, nano.card)


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)


@pytest.fixture(scope="module")
def depth_request(picture: np.ndarray, data_url: Callable[..., str]) -> dict:
    return {"image": data_url(picture[:20, :20]), "steps": 1}


def test_twice_the_capacity(running: Running, slow: Slow, depth_request: dict) -> None:
    """Forty requests a second where twenty can be done: those taken are done soon, the others hear when to return."""
    config = ServerConfig("nano", batch_size=2, waiting=8)

    async def offered(url: str) -> list[tuple[int, float, str]]:
        async with httpx.AsyncClient(
            base_url=url, timeout=PATIENCE_S, limits=httpx.Limits(max_connections=200)
        ) as http:

            async def one(number: int) -> tuple[int, float, str]:
                await asyncio.sleep(number * SECONDS_EACH / 2)
                began = time.monotonic()
                reply = await http.post("/v1/depth", json=depth_request)
                return reply.status_code, time.monotonic() - began, reply.headers.get("retry-after", "")

            return await asyncio.gather(*(one(number) for number in range(100)))

    with running(slow, config) as (url, app, _):
        replies = asyncio.run(offered(url))
        queue = app.state.service.engine.queue
        until(lambda: len(queue) == 0 and queue.working == 0)
        text = httpx.get(f"{url}/metrics").text
    done = [seconds for status, seconds, _ in replies if status == 200]
    refused = [(seconds, after) for status, seconds, after in replies if status == 429]
    assert len(done) + len(refused) == 100
    assert len(done) >= 30 and len(refused) >= 20
    assert max(done) < 5.0
    assert all(int(after) >= 1 for _, after in refused)
    assert f'path="/v1/depth",status="200"}} {len(done)}.0' in text
    assert 'gemvlm_batch_jobs_bucket{kind="depth",le="1.0"}' in text


def test_a_server_that_stops_finishes_what_it_has(running: Running, slow: Slow, depth_request: dict) -> None:
    statuses: list[int] = []
    config = ServerConfig("nano", batch_size=1)
    slow.seconds_each = 0.4
    with httpx.Client(timeout=PATIENCE_S) as http, running(slow, config) as (url, app, listening):
        queue = app.state.service.engine.queue
        askers = [
            threading.Thread(
                target=lambda: statuses.append(http.post(f"{url}/v1/depth", json=depth_request).status_code)
            )
            for _ in range(8)
        ]
        for asker in askers:
            asker.start()
        until(lambda: len(queue) + queue.working >= 5)
        listening.should_exit = True
        for asker in askers:
            asker.join(PATIENCE_S)
        until(lambda: queue.closed and not queue.alive)
    assert len(statuses) == 8 and statuses.count(200) >= 5
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_who_hangs_up_is_forgotten(running: Running, nano: GemPipeline) -> None:
    limits = Limits(new_tokens=3000)
    request = {"model": "nano", "messages": [{"role": "user", "content": "Describe the scene."}], "max_tokens": 3000}
    with running(nano, ServerConfig("nano", limits)) as (url, app, _):
        queue = app.state.service.engine.queue
        endless = request | {"temperature": 2.0}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=endless | {"stream": True}) as reply:
            assert reply.status_code == 200
            next(reply.iter_text())
        until(lambda: queue.working == 0 and len(queue) == 0)
        with contextlib.suppress(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/chat/completions", json=endless, timeout=0.3)
        until(lambda: queue.working == 0 and len(queue) == 0)
        assert httpx.get(f"{url}/healthz").status_code == 200


class Held(GemPipeline):
    """Makes no depth before it is let go: whatever is asked meanwhile waits."""

    let_go = threading.Event()

    def depth_batch(self, images: Any, **options: Any) -> list[DepthPrediction]:
        assert self.let_go.wait(PATIENCE_S)
        return super().depth_batch(images, **options)


def test_time_is_limited(running: Running, nano: GemPipeline, depth_request: dict) -> None:
    held = Held(nano.gem, nano.tokenizer, nano.card)
    with running(held, ServerConfig("nano", Limits(seconds=0.02))) as (url, _, _listening):
        reply = httpx.post(f"{url}/v1/depth", json=depth_request)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "timeout")
        chat = {"model": "nano", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        streamed = httpx.post(f"{url}/v1/chat/completions", json=chat).text
        held.let_go.set()
    assert '"timeout"' in streamed


def test_a_late_picture_keeps_its_place_until_it_is_done(nano: GemPipeline) -> None:
    """Threads can't be stopped: were its place given away, slow pictures would gather without a bound."""
    service = Service(nano, ServerConfig("nano", Limits(seconds=0.05), decoders=1))
    let_go, begun = threading.Event(), []

    def decode(name: str) -> None:
        begun.append(name)
        assert let_go.wait(PATIENCE_S)

    async def asked() -> None:
        for name in ("first", "second"):
            with pytest.raises(Refusal, match=r"not done within 0\.05 s"):
                await service.prepared(decode, name)
        assert begun == ["first"]
        let_go.set()

    asyncio.run(asked())
    service.decoders.shutdown()
    service.engine.queue.close(PATIENCE_S)
    assert begun == ["first"]


def test_a_body_that_trickles_is_cut_off(running: Running, nano: GemPipeline) -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(20):
            yield b" "
            time.sleep(0.05)

    with running(nano, ServerConfig("nano", Limits(upload_seconds=0.2))) as (url, _, _listening):
        with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError):
            assert httpx.post(f"{url}/v1/depth", content=slowly()).status_code == 408
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_memory_stays_where_it_is(running: Running, slow: Slow, data_url: Callable[..., str]) -> None:
    large = data_url(np.random.default_rng(2).integers(0, 256, (700, 700, 3), dtype=np.uint8))
    with running(slow, ServerConfig("nano")) as (url, _, _listening), httpx.Client(base_url=url, timeout=30) as http:
        for number in range(30):
            assert http.post("/v1/depth", json={"image": large, "steps": 1}).status_code == 200
            if number == 9:
                before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 40_000
