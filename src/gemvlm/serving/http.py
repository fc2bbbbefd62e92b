"""Answers over HTTP: OpenAI's chat completions with pictures and streaming, and points and depth in forms of our own.

    app = build_app(gemvlm.load("nano"), ServerConfig("nano"))

Errors have OpenAI's form. A request is read and its pictures are decoded in threads; the model is worked by one thread
behind a bounded queue. Who goes away is forgotten at once, who must wait too long is told so with 429.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from gemvlm.data.collate import Prompt
from gemvlm.inference import Answer, GemPipeline
from gemvlm.inference.locate import Location
from gemvlm.inference.phrases import point_to
from gemvlm.inference.pipeline import POINT_TOKENS
from gemvlm.runtime import get_log
from gemvlm.serving import messages as wire
from gemvlm.serving.chat import add_chat
from gemvlm.serving.depth_answer import depth_bytes, depth_json, wanted_format
from gemvlm.serving.engine import Conversation
from gemvlm.serving.failures import REFUSALS, add_errors, leave_out_422
from gemvlm.serving.gate import Gate
from gemvlm.serving.limits import Refusal
from gemvlm.serving.locating import locate_answer, locate_request, painting
from gemvlm.serving.prompts import plain
from gemvlm.serving.service import ServerConfig, Service, as_json


def build_app(pipeline: GemPipeline, config: ServerConfig) -> FastAPI:
    """The server as an ASGI application. It owns a worker thread until its lifespan ends."""
    service = Service(pipeline, config)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        finished = await asyncio.to_thread(service.engine.queue.close, config.drain_s)
        service.decoders.shutdown(wait=False, cancel_futures=True)
        get_log().info("the queue is %s", "empty" if finished else "given up")

    app = FastAPI(
        title="gemvlm",
        description="Answers, points and depth from pictures",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    add_errors(app)
    add_chat(app, service)
    _add_pictures(app, service)
    _add_health(app, service)
    leave_out_422(app)
    app.add_middleware(
        Gate,
        limits=config.limits,
        key=config.api_key,
        at_once=config.connections,
        seen=service.metrics.answered,
    )
    return app


def _add_pictures(app: FastAPI, service: Service) -> None:
    engine = service.engine

    @app.post("/v1/point", response_model=wire.PointAnswer, responses=REFUSALS)
    async def point(request: Request, body: wire.PointRequest) -> Response:
        """Where the thing is that an expression names."""

        def conversation() -> Conversation:
            question = point_to(plain(body.expression, "expression"))
            tokens = min(POINT_TOKENS, service.limits.new_tokens)
            return engine.prepare_chat(Prompt([service.frames()(body.image, "image")], question), tokens)

        reply = service.counted(await service.done(request, engine.chat(await service.prepared(conversation))))
        points = Answer.from_text(reply.text, service.coordinates).points
        place = wire.Place(x=points[0].x, y=points[0].y) if points else None
        return as_json(wire.PointAnswer(point=place, text=reply.text, usage=wire.usage(reply)))

    files: dict[str, Any] = {"image/png": {}, "application/x-npz": {}}

    @app.post("/v1/depth", response_model=wire.DepthAnswer, responses={200: {"content": files}, **REFUSALS})
    async def depth(request: Request, body: wire.DepthRequest) -> Response:
        """The depth of a picture: JSON that says what it is, a 16-bit PNG in millimetres, or a float32 .npz."""
        wanted = body.format or wanted_format(request.headers.get("accept", ""))
        settings = painting(body, service.limits)
        picture = await service.prepared(service.picture, body.image, "image")
        job = engine.depth(picture, **settings)
        prediction = await service.done(request, job)
        if wanted == "json":
            return as_json(await service.prepared(depth_json, prediction))
        content, media_type = await service.prepared(depth_bytes, prediction.depth, wanted)
        return Response(content, media_type=media_type)

    @app.post("/v1/locate", response_model=wire.LocateAnswer, responses=REFUSALS)
    async def locate(request: Request, body: wire.LocateBody) -> Response:
        """Where in space the thing is that an expression names."""
        settings = painting(body, service.limits)
        metres = engine.pipeline.encoding.is_fixed
        asked, weight = await service.prepared(locate_request, body, service.picture, service.limits, metres)
        found: Location = await service.done(request, engine.locate(asked, weight, **settings))
        return as_json(locate_answer(found))


def _add_health(app: FastAPI, service: Service) -> None:
    queue = service.engine.queue

    @app.get("/healthz", response_model=wire.Health, responses={503: REFUSALS[503]})
    async def healthz() -> Response:
        """Whether the process lives: 503 asks for a restart."""
        if not queue.alive and not queue.closed:
            raise Refusal("the worker is dead; restart the server", status=503, code="dead")
        return as_json(wire.Health(status="ok"))

    @app.get("/readyz", response_model=wire.Health, responses={503: REFUSALS[503]})
    async def readyz() -> Response:
        """Whether to send requests here: 503 while shutting down and while the queue is full."""
        if queue.closed:
            raise Refusal("shutting down", status=503, code="closed")
        if len(queue) >= queue.room:
            raise Refusal("the queue is full", status=503, code="busy", wait_s=1)
        return as_json(wire.Health(status="ready"))

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: REFUSALS[401], 429: REFUSALS[429]},
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
