"""`/v1/chat/completions`, whole or as server-sent events, and `/v1/models`: OpenAI's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from gemvlm.serving import messages as wire
from gemvlm.serving.engine import Conversation
from gemvlm.serving.failures import REFUSALS, refusal_of
from gemvlm.serving.gate import error_body
from gemvlm.serving.limits import Refusal
from gemvlm.serving.prompts import prompt_of
from gemvlm.serving.service import Service, as_json

EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {"type": "string", "description": "A chat.completion.chunk or an error as JSON; at the end [DONE]"}
    },
}
"""What each event of a stream is, in the OpenAPI document."""


def add_chat(app: FastAPI, service: Service) -> None:
    """Adds the two routes."""
    streamed = {"content": {"text/event-stream": {"schema": EVENT}}}

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
        return as_json(wire.completion(body.model, reply))

    @app.get("/v1/models", response_model=wire.ModelList, responses={401: REFUSALS[401], 429: REFUSALS[429]})
    async def models() -> Response:
        """The one model that is served here."""
        return as_json(wire.ModelList(data=[wire.ModelCard(id=service.config.model, created=service.started)]))


def _conversation(service: Service, body: wire.ChatRequest) -> Conversation:
    limit = service.limits.new_tokens
    wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if wanted is not None and wanted > limit:
        raise Refusal(f"max_tokens: {wanted} is more than {limit}", code="invalid_value", param="max_tokens")
    return service.engine.prepare_chat(prompt_of(body.messages, service.limits, service.frames()), wanted)


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
            yield _event(error_body(refusal_of(error)))
        finally:
            job.future.cancel()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _event(values: dict[str, Any]) -> str:
    return f"data: {json.dumps(values)}\n\n"
