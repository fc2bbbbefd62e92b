"""What a client is told when a request fails, whatever failed: a status and words, in OpenAI's form."""

from __future__ import annotations

from typing import Any

import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from gemvlm.runtime import get_log
from gemvlm.serving.gate import error_body, error_headers
from gemvlm.serving.limits import Refusal
from gemvlm.serving.messages import ErrorAnswer
from gemvlm.serving.queue import Busy, Closed

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": words}
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


def add_errors(app: FastAPI) -> None:
    """Has every failure of a route answered by `refusal_of`."""

    def told(_: Request, error: Exception) -> Response:
        refusal = refusal_of(error)
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


def refusal_of(error: BaseException) -> Refusal:
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


def leave_out_422(app: FastAPI) -> None:
    """FastAPI documents its own form of refusals, which is never sent here."""
    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
