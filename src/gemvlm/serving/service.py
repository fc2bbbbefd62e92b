"""What the routes of a server share: its settings, the engine, the readers of pictures, the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from gemvlm.inference import GemPipeline
from gemvlm.runtime import get_log
from gemvlm.sample import Frame
from gemvlm.serving.engine import Engine, Picture, Reply
from gemvlm.serving.fetch import fetch_image
from gemvlm.serving.limits import Limits, Refusal, data_url_bytes, decode_image
from gemvlm.serving.metrics import Metrics
from gemvlm.serving.queue import Busy, Job

T = TypeVar("T")
PATHS = (
    "/v1/chat/completions",
    "/v1/models",
    "/v1/point",
    "/v1/depth",
    "/v1/locate",
    "/healthz",
    "/readyz",
    "/metrics",
)
"""All that a server answers; requests for anything else are counted as one."""


@dataclass(frozen=True)
class ServerConfig:
    """One server. `model` is the name by which clients ask for it; without an `api_key` everybody may ask.

    `connections` requests are inside at once, `waiting` of them in the queue. `image_hosts` are those from which
    pictures may be fetched. `drain_s` is how long a server that shuts down works on what is queued.
    """

    model: str
    limits: Limits = field(default_factory=Limits)
    api_key: str | None = field(default=None, repr=False)
    batch_size: int = 8
    waiting: int = 64
    connections: int = 256
    decoders: int = 2
    image_hosts: tuple[str, ...] = ()
    drain_s: float = 60.0

    def __post_init__(self) -> None:
        if self.api_key is not None and (not self.api_key or not self.api_key.isascii()):
            raise ValueError("server: the API key must be ASCII and not empty; unset it to let everybody ask")


class Service:
    """What the routes share: the engine, the readers of pictures, the clock."""

    def __init__(self, pipeline: GemPipeline, config: ServerConfig) -> None:
        self.config, self.limits = config, config.limits
        self.metrics = Metrics(PATHS)
        self.engine = Engine(
            pipeline,
            config.limits,
            batch_size=config.batch_size,
            waiting=config.waiting,
            observe=self.metrics.worked,
        )
        self.metrics.watch(self.engine.queue)
        self.started = int(time.time())
        self.coordinates = pipeline.coordinates
        self.decoders = ThreadPoolExecutor(config.decoders, thread_name_prefix="decoder")
        self._preparing = 0

    def check_model(self, name: str) -> None:
        if name != self.config.model:
            raise Refusal(
                f"the model {name!r} is not served here; ask for {self.config.model!r}",
                status=404,
                code="model_not_found",
                param="model",
            )

    def picture(self, url: str, param: str) -> Picture:
        """The picture of a URL: its own bytes, or fetched where the server's owner allows that."""
        if url[:5].lower() == "data:" or not self.config.image_hosts:
            content = data_url_bytes(url, self.limits, param)
        else:
            content = fetch_image(url, self.config.image_hosts, self.limits, param)
        picture = decode_image(content, self.limits, param)
        self.engine.check_shape(picture, param)
        return picture

    def frames(self) -> Callable[[str, str], Frame]:
        """Reads the pictures of one request, one by one. Refusal once they have too many pixels together."""
        left = self.limits.all_pixels

        def frame(url: str, param: str) -> Frame:
            nonlocal left
            picture = self.picture(url, param)
            left -= picture.shape[0] * picture.shape[1]
            if left < 0:
                raise Refusal(
                    f"{param}: the pictures have more than {self.limits.all_pixels:,} pixels in all; send smaller ones",
                    status=413,
                    code="image_too_large",
                    param=param,
                )
            return self.engine.frame(picture)

        return frame

    async def prepared(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs `work` in one of a few threads: pictures of many requests are not decoded at once.

        Busy if as many wait for it as may wait for the model; Refusal when a request's time is over. What has begun by
        then keeps its thread to its end.
        """
        if self._preparing >= self.config.waiting + self.config.decoders:
            raise Busy(self._preparing, 1)
        self._preparing += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await asyncio.get_running_loop().run_in_executor(self.decoders, work, *arguments)
        except TimeoutError:
            raise self.late() from None
        finally:
            self._preparing -= 1

    async def done(self, request: Request, job: Job) -> Any:
        """The result of a job. Gives it up when its time is over, or when who asked has gone."""
        future = asyncio.wrap_future(job.future)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({future, gone}, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return _result(future)
            if gone.done():
                raise Refusal("the request was broken off", code="disconnected")
            raise self.late()
        finally:
            gone.cancel()
            future.cancel()

    def late(self) -> Refusal:
        return Refusal(
            f"not done within {self.limits.seconds:g} s; ask for less, or later", status=503, code="timeout", wait_s=5
        )

    def counted(self, reply: Reply) -> Reply:
        self.metrics.prompt_tokens.inc(reply.prompt_tokens)
        self.metrics.new_tokens.inc(reply.new_tokens)
        return reply


def _result(future: asyncio.Future[Any]) -> Any:
    """What is wrong with a request was told before it was queued: a ValueError from the model is to be looked into."""
    try:
        return future.result()
    except ValueError as error:
        get_log().warning("the model refused a request", exc_info=error)
        raise


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def as_json(answer: BaseModel) -> Response:
    """An answer whose fields were checked when it was made: it is written as it is."""
    return Response(answer.model_dump_json(), media_type="application/json")
