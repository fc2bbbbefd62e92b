# ruff: noqa: E402 - what a test needs may be absent
"""Requests that no client would send, made from the server's own OpenAPI document, with hostile pictures among them.

Every answer must have a documented status, the documented form and, whatever was sent, no 5xx.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs gemvlm[serve]")
pytest.importorskip("prometheus_client", reason="the server needs gemvlm[serve]")
schemathesis = pytest.importorskip("schemathesis", reason="a development tool")

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gemvlm.inference import GemPipeline
from gemvlm.serving.http import build_app
from gemvlm.serving.limits import Limits
from gemvlm.serving.service import ServerConfig

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
POSTS = ("/v1/chat/completions", "/v1/point", "/v1/depth", "/v1/locate")
PAINTED = ("/v1/depth", "/v1/locate")
GETS = ("/v1/models", "/healthz", "/readyz", "/metrics")


def pictures(data_url: Callable[..., str]) -> list[str]:
    small = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    whole = data_url(small)
    return [
        *[whole] * 9,
        data_url(small[:1]),
        data_url(np.ones((24, 32), np.uint16)),
        whole[:-60],
        whole[:300] + "A" * 40 + whole[340:],
        data_url(b"GIF89a" + bytes(50)),
        data_url(b"\x89PNG\r\n\x1a\n" + bytes(40)),
        "file:///etc/passwd",
        "../../../etc/passwd",
        "http://127.0.0.1/x.png",
    ]


def with_pictures(value: Any, draw: Callable[[list[str]], str], urls: list[str], chance: Callable[[], bool]) -> Any:
    """The body with a data URL, whole or hostile, wherever a picture stands, and the model's own name."""
    if isinstance(value, list):
        return [with_pictures(item, draw, urls, chance) for item in value]
    if not isinstance(value, dict):
        return value
    made = {name: with_pictures(item, draw, urls, chance) for name, item in value.items()}
    for name in ("image", "url", "depth"):
        if isinstance(made.get(name), str) and chance():
            made[name] = draw(urls)
    if isinstance(made.get("model"), str) and chance():
        made["model"] = "nano"
    messages = made.get("messages")
    if isinstance(messages, list) and all(isinstance(each, dict) for each in messages) and chance():
        made["messages"] = in_turns(messages)
    return made


def in_turns(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as a conversation in form: user and assistant by turns, and the user last."""
    kept = messages[: len(messages) - (len(messages) + 1) % 2]
    return [each | {"role": "assistant" if index % 2 else "user"} for index, each in enumerate(kept)]


def fuzz(nano: GemPipeline, data_url: Callable[..., str], examples: int) -> dict[int, int]:
    """Sends `examples` valid and as many invalid requests to each path that takes a body; counts statuses."""
    limits = Limits(request_bytes=300_000, image_pixels=100_000, new_tokens=2, depth_steps=30, depth_ensemble=2)
    app = build_app(nano, ServerConfig("nano", limits))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    urls, statuses = pictures(data_url), {}
    for path in (*POSTS, *GETS):
        method = "POST" if path in POSTS else "GET"
        for mode in GenerationMode if path in POSTS else (GenerationMode.POSITIVE,):

            @settings(
                max_examples=examples if path in POSTS else 3,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=schema[path][method].as_strategy(generation_mode=mode), data=st.data())
            def send(case: Any, data: Any) -> None:
                draw = data.draw
                case.body = with_pictures(
                    case.body, lambda them: draw(st.sampled_from(them)), urls, lambda: draw(st.integers(0, 3)) > 0
                )
                if isinstance(case.body, dict) and case.path in PAINTED and type(case.body.get("steps", 30)) is int:
                    case.body["steps"] = case.body.get("steps", 1) % 4
                reply = case.call(timeout=120)
                statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
                case.validate_response(reply, checks=CHECKS)

            send()
    assert app.state.service.engine.queue.close(30.0)
    return statuses


def test_a_few_strange_requests(nano: GemPipeline, data_url: Callable[..., str]) -> None:
    statuses = fuzz(nano, data_url, 6)
    assert sum(statuses.values()) >= 40
    assert all(status < 500 for status in statuses)


@pytest.mark.slow
def test_two_thousand_strange_requests(nano: GemPipeline, data_url: Callable[..., str]) -> None:
    fuzz(nano, data_url, 4)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    statuses = fuzz(nano, data_url, 260)
    after_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{sum(statuses.values())} answers by status {statuses}; memory at most {before_kib}, then {after_kib} KiB")
    assert sum(statuses.values()) >= 2000
    assert statuses[200] >= 100
    assert all(status < 500 for status in statuses)
    assert after_kib - before_kib < 200_000
