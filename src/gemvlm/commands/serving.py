"""Commands that listen on a port: serve, page."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg

from gemvlm.commands import Device, Model, Precision, Scheme

Hosts = Annotated[tuple[str, ...], arg(metavar="HOST...")]


def serve(
    model: Model,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    batch_size: int = 8,
    waiting: int = 64,
    max_new_tokens: int = 1024,
    max_images: int = 16,
    max_pixels: int = 16_777_216,
    max_megabytes: int = 32,
    seconds: float = 120.0,
    image_hosts: Hosts = (),
    device: Device = None,
    dtype: Precision = "float32",
    quantised: Scheme = None,
) -> None:
    """Answer over HTTP: OpenAI's /v1/chat/completions with pictures, and /v1/point, /v1/depth, /v1/locate.

    The key that clients must send, if one is wanted, is read from the environment variable GEMVLM_API_KEY.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        name: By which clients ask for the model; the name given as MODEL by default.
        host: Address to listen on; 0.0.0.0 for every network that reaches this machine.
        port: Port to listen on.
        batch_size: Requests that share one pass of the model, at most.
        waiting: Requests that wait, at most; further ones are told to come back (429).
        max_new_tokens: Of one answer.
        max_images: Of one request.
        max_pixels: Of one image; those of one request may have four times as many.
        max_megabytes: Of one request; one image may have half of them.
        seconds: That one request may take.
        image_hosts: Hosts ("images.example.org") from which pictures may be fetched; none by default.
        device: cpu, cuda or mps; the best there is by default.
        dtype: Of the weights and of the work; bfloat16 takes half the memory and is what GPUs are fast at.
        quantised: int8, int8_dynamic or int4: smaller weights, on a CPU; see docs/faster.md for what they bring.
    """
    from pathlib import Path

    from gemvlm.inference import load
    from gemvlm.runtime import get_log, secret
    from gemvlm.serving.http import build_app
    from gemvlm.serving.limits import Limits
    from gemvlm.serving.run import server
    from gemvlm.serving.service import ServerConfig

    limits = Limits(
        request_bytes=max_megabytes * 2**20,
        image_bytes=max_megabytes * 2**19,
        images=max_images,
        image_pixels=max_pixels,
        all_pixels=4 * max_pixels,
        new_tokens=max_new_tokens,
        seconds=seconds,
    )
    key = secret("GEMVLM_API_KEY")
    config = ServerConfig(
        name or Path(model).name,
        limits,
        api_key=key,
        batch_size=batch_size,
        waiting=waiting,
        image_hosts=image_hosts,
    )
    app = build_app(load(model, device, dtype, quantised), config)
    told = "with a key" if key else "to everybody who reaches it (set GEMVLM_API_KEY to ask for a key)"
    get_log().info("%s is served at http://%s:%d/v1, %s", config.model, host, port, told)
    server(app, host, port, drain_s=config.drain_s).run()


def page(
    model: Model, *, host: str = "127.0.0.1", port: int = 7860, device: Device = None, dtype: Precision = "float32"
) -> None:
    """Open a page to try a model on: ask, point, depth, 3-D. Works without a network.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        host: Address to listen on; 0.0.0.0 for every network that reaches this machine.
        port: Port to listen on.
        device: cpu, cuda or mps; the best there is by default.
        dtype: Of the weights and of the work; bfloat16 takes half the memory and is what GPUs are fast at.
    """
    from pathlib import Path

    from gemvlm.inference import load
    from gemvlm.runtime import get_log
    from gemvlm.serving.page import build_page
    from gemvlm.serving.run import server

    app = build_page(load(model, device, dtype), Path(model).name)
    get_log().info("the page is at http://%s:%d", host, port)
    server(app, host, port, drain_s=5).run()
