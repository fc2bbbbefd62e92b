"""What a robot's server tells over plain HTTP, and who is let through to the websocket."""

from __future__ import annotations

import hmac
import json
from http import HTTPStatus
from typing import Any

from gemvlm.serving.robot_latency import counters
from gemvlm.serving.robot_service import RobotService

_COUNTED = {
    "connections": "connections that were opened",
    "answers": "chunks that were sent",
    "stops": "answers that told a robot to keep still",
    "refusals": "requests that could not be served",
    "failures": "requests on which the policy failed",
}


def page(service: RobotService, connection: Any, request: Any) -> Any:
    """The HTTP response to a request, or None: go on to the websocket. `/healthz` needs no key."""
    path = request.path.split("?", 1)[0]
    if path == "/healthz":
        if not service.worker.queue.alive or service.stuck_s:
            text = f"the policy has been at one answer for {service.stuck_s:.0f} s\n"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, text)
        return connection.respond(HTTPStatus.OK, "OK\n")
    key = service.settings.api_key
    if key is not None and not has_key(request.headers.get_all("Authorization"), key):
        return connection.respond(HTTPStatus.UNAUTHORIZED, "send the header Authorization: Api-Key KEY\n")
    if path == "/metrics":
        return connection.respond(HTTPStatus.OK, metrics(service))
    if path == "/metadata":
        response = connection.respond(HTTPStatus.OK, json.dumps(service.description, indent=1) + "\n")
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response
    if service.full:
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many robots are connected\n")
    return None


def has_key(sent: list[str], key: str) -> bool:
    """Whether `Authorization` headers hold the key: `Api-Key KEY` as openpi's client sends it, or `Bearer KEY`."""
    words = sent[0].split(None, 1) if len(sent) == 1 else []
    if len(words) != 2 or words[0].lower() not in ("api-key", "bearer"):
        return False
    return hmac.compare_digest(words[1].strip().encode("utf-8", "replace"), key.encode())


def metrics(service: RobotService) -> str:
    """Counts and latencies in Prometheus' text format."""
    numbers = {
        f"gemvlm_robot_{name}_total": ("counter", _COUNTED[name], float(count))
        for name, count in service.counts.items()
    }
    numbers["gemvlm_robot_connected"] = ("gauge", "robots connected now", float(service.connected))
    numbers["gemvlm_robot_waiting"] = ("gauge", "observations waiting now", float(len(service.worker.queue)))
    return (
        counters(numbers)
        + service.worker.inference.prometheus("gemvlm_robot_inference_seconds", "time of the policy for one batch")
        + service.answering.prometheus("gemvlm_robot_answer_seconds", "time from an observation to its answer")
    )
