"""Answers over HTTP: OpenAI's chat completions with pictures and streaming, and points and depth in forms of our own.

    app = build_app(gemvlm.load("nano"), ServerConfig("nano"))

Errors have OpenAI's form. A request is read and its pictures are decoded in threads; the model is worked by one thread
behind a bounded queue. Who goes away is forgotten at once, who must wait too long is told so with 429.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from gemvlm.data.collate import Prompt
from gemvlm.inference import Answer, GemPipeline
from gemvlm.inference.locate import Location
from gemvlm.inference.phrases import point_to
from gemvlm.runtime import get_log
from gemvlm.sample import Frame
from gemvlm.serving import messages as wire
from gemvlm.serving.depth_answer import depth_bytes, depth_json, wanted_format
from gemvlm.serving.engine import Conversation, Engine, Picture, Reply
from gemvlm.serving.fetch import fetch_image
from gemvlm.serving.gate import Gate, error_body, error_headers
from gemvlm.serving.limits import Limits, Refusal, data_url_bytes, decode_image
from gemvlm.serving.locating import locate_answer, locate_request, painting
from gemvlm.serving.metrics import Metrics
from gemvlm.serving.prompts import plain, prompt_of
from gemvlm.serving.queue import Busy, Closed, Job

T = TypeVar("T")
POINT_TOKENS = 48
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": wire.ErrorAnswer, "description": words}
    for status, words in {
        400: "The request is wrong; the message says where",
        401: "The API key is missing or wrong",
        404: "No such model",
        408: "The request came too slowly",
        413: "Too many bytes, pixels or pictures",
        429: "Too much is waiting; Retry-After says when to come back",
        503: "Shutting down, out of memory, or out of time",
    }.items()
}


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
        self._decoders = asyncio.Semaphore(config.decoders)

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
        self.engine.check_shape(picture)
        return picture

    def frame(self, url: str, param: str) -> Frame:
        return self.engine.frame(self.picture(url, param))

    async def prepared(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs `work` in a thread, a few at a time: pictures of many requests are not decoded at once."""
        async with self._decoders:
            return await asyncio.to_thread(work, *arguments)

    async def done(self, request: Request, job: Job) -> Any:
        """The result of a job. Gives it up when its time is over, or when who asked has gone."""
        future = asyncio.wrap_future(job.future)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({future, gone}, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
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


def build_app(pipeline: GemPipeline, config: ServerConfig) -> FastAPI:
    """The server as an ASGI application. It owns a worker thread until its lifespan ends."""
    service = Service(pipeline, config)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        finished = await asyncio.to_thread(service.engine.queue.close, config.drain_s)
        get_log().info("the queue is %s", "empty" if finished else "given up")

    app = FastAPI(
        title="gemvlm",
        description="Answers, points and depth from pictures",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    _add_errors(app)
    _add_chat(app, service)
    _add_pictures(app, service)
    _add_health(app, service)
    _leave_out_422(app)
    app.add_middleware(
        Gate,
        limits=config.limits,
        key=config.api_key,
        at_once=config.connections,
        seen=service.metrics.answered,
    )
    return app


def _add_chat(app: FastAPI, service: Service) -> None:
    streamed = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}

    @app.post("/v1/chat/completions", response_model=wire.ChatCompletion, responses={200: streamed, **REFUSALS})
    async def chat_completions(request: Request, body: wire.ChatRequest) -> Response:
        """Answer a conversation about pictures."""
        service.check_model(body.model)
        if name := body.unsupported():
            raise Refusal(f"{name}: not supported; leave it out", code="unsupported_parameter", param=name)
        conversation = await service.prepared(_conversation, service, body)
        temperature, seed = body.temperature or 0.0, body.seed or 0
        if body.stream:
            return _streamed(service, body, conversation, float(temperature), seed)
        job = service.engine.chat(conversation, float(temperature), seed)
        reply = service.counted(await service.done(request, job))
        return _json(wire.completion(body.model, reply))

    @app.get("/v1/models", response_model=wire.ModelList, responses={401: REFUSALS[401], 429: REFUSALS[429]})
    async def models() -> Response:
        """The one model that is served here."""
        return _json(wire.ModelList(data=[wire.ModelCard(id=service.config.model, created=service.started)]))


def _conversation(service: Service, body: wire.ChatRequest) -> Conversation:
    limit = service.limits.new_tokens
    wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if wanted is not None and wanted > limit:
        raise Refusal(f"max_tokens: {wanted} is more than {limit}", code="invalid_value", param="max_tokens")
    return service.engine.prepare_chat(prompt_of(body.messages, service.limits, service.frame), wanted)


def _streamed(
    service: Service, body: wire.ChatRequest, conversation: Conversation, temperature: float, seed: int
) -> Response:
    """Server-sent events. The job is queued before the first byte: a full queue is still a 429."""
    loop, mail = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def post(piece: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            loop.call_soon_threadsafe(mail.put_nowait, piece)

    job = service.engine.chat(conversation, temperature, seed, on_piece=post)
    job.future.add_done_callback(lambda _: post(None))
    identity, created = wire.new_id(), int(time.time())

    def event(delta: dict[str, str], reason: str | None = None) -> str:
        return _event(wire.chunk(identity, created, body.model, delta, reason))

    async def events() -> AsyncIterator[str]:
        try:
            yield event({"role": "assistant", "content": ""})
            async with asyncio.timeout(service.limits.seconds):
                while (piece := await mail.get()) is not None:
                    yield event({"content": piece})
            reply = service.counted(job.future.result(timeout=0))
            yield event({}, "stop" if reply.finished else "length")
            if body.stream_options is not None and body.stream_options.include_usage:
                last = wire.chunk(identity, created, body.model, {}) | {"choices": [], "usage": wire.usage(reply)}
                yield _event(last | {"usage": wire.usage(reply).model_dump()})
            yield "data: [DONE]\n\n"
        except TimeoutError:
            yield _event(error_body(service.late()))
        except Exception as error:  # the status is sent: what went wrong can only be the last event
            yield _event(error_body(_refusal(error)))
        finally:
            job.future.cancel()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _add_pictures(app: FastAPI, service: Service) -> None:
    engine = service.engine

    @app.post("/v1/point", response_model=wire.PointAnswer, responses=REFUSALS)
    async def point(request: Request, body: wire.PointRequest) -> Response:
        """Where the thing is that an expression names."""

        def conversation() -> Conversation:
            question = point_to(plain(body.expression, "expression"))
            return engine.prepare_chat(Prompt([service.frame(body.image, "image")], question), POINT_TOKENS)

        reply = service.counted(await service.done(request, engine.chat(await service.prepared(conversation))))
        points = Answer.from_text(reply.text, service.coordinates).points
        place = wire.Place(x=points[0].x, y=points[0].y) if points else None
        return _json(wire.PointAnswer(point=place, text=reply.text, usage=wire.usage(reply)))

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
            return _json(await service.prepared(depth_json, prediction))
        content, media_type = await service.prepared(depth_bytes, prediction.depth, wanted)
        return Response(content, media_type=media_type)

    @app.post("/v1/locate", response_model=wire.LocateAnswer, responses=REFUSALS)
    async def locate(request: Request, body: wire.LocateBody) -> Response:
        """Where in space the thing is that an expression names."""
        settings = painting(body, service.limits)
        asked, weight = await service.prepared(locate_request, body, service.picture, service.limits)
        found: Location = await service.done(request, engine.locate(asked, weight, **settings))
        return _json(locate_answer(found))


def _add_health(app: FastAPI, service: Service) -> None:
    queue = service.engine.queue

    @app.get("/healthz", response_model=wire.Health, responses={503: REFUSALS[503]})
    async def healthz() -> Response:
        """Whether the process lives: 503 asks for a restart."""
        if not queue.alive and not queue.closed:
            raise Refusal("the worker is dead; restart the server", status=503, code="dead")
        return _json(wire.Health(status="ok"))

    @app.get("/readyz", response_model=wire.Health, responses={503: REFUSALS[503]})
    async def readyz() -> Response:
        """Whether to send requests here: 503 while shutting down and while the queue is full."""
        if queue.closed:
            raise Refusal("shutting down", status=503, code="closed")
        if len(queue) >= queue.room:
            raise Refusal("the queue is full", status=503, code="busy", wait_s=1)
        return _json(wire.Health(status="ready"))

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: REFUSALS[401], 429: REFUSALS[429]},
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_errors(app: FastAPI) -> None:
    def told(_: Request, error: Exception) -> Response:
        refusal = _refusal(error)
        return JSONResponse(error_body(refusal), refusal.status, error_headers(refusal) | _allowed(error))

    for kind in (
        Refusal,
        Busy,
        Closed,
        HTTPException,
        RequestValidationError,
        ValueError,
        MemoryError,
        RuntimeError,
        Exception,
    ):
        app.add_exception_handler(kind, told)


def _refusal(error: BaseException) -> Refusal:
    """What a client is told of any failure. Of our own mistakes it hears that they happened; the log hears the rest."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Busy):
        return Refusal(str(error), status=429, code="rate_limit_exceeded", wait_s=error.wait_s)
    if isinstance(error, Closed):
        return Refusal(str(error), status=503, code="closed", wait_s=5)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:]) or None
        return Refusal(f"{param or 'the body'}: {first['msg']}", code=str(first["type"]), param=param)
    if isinstance(error, HTTPException):
        return Refusal(str(error.detail), status=error.status_code, code="invalid_request")
    if isinstance(error, ValueError):
        return Refusal(str(error))
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Refusal("out of memory; send smaller or fewer images", status=503, code="out_of_memory", wait_s=5)
    get_log().error("a request failed", exc_info=error)
    return Refusal("the server failed on this request; its log says how", status=500, code="internal_error")


def _allowed(error: Exception) -> dict[str, str]:
    return dict(error.headers or {}) if isinstance(error, HTTPException) else {}


def _leave_out_422(app: FastAPI) -> None:
    """FastAPI documents its own form of refusals, which is never sent here."""
    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(model: Any) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _event(values: dict[str, Any]) -> str:
    return f"data: {json.dumps(values)}\n\n"
