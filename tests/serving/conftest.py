"""The shipped model, a picture with the data URL that a client would send, and a server that really listens."""

from __future__ import annotations

import base64
import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def nano():
    from gemvlm.inference import load

    return load("nano", device="cpu")


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def data_url() -> Callable[..., str]:
    """Bytes of a file, or an image to be written as PNG, as a data URL."""

    def made(content: bytes | np.ndarray, media_type: str = "image/png") -> str:
        if isinstance(content, np.ndarray):
            buffer = io.BytesIO()
            Image.fromarray(content).save(buffer, "PNG")
            content = buffer.getvalue()
        return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

    return made


PATIENCE_S = 30.0


@pytest.fixture(scope="session")
def running() -> Callable[..., contextlib.AbstractContextManager[tuple[str, Any, Any]]]:
    """Runs a server of (pipeline, config) on a port of this machine; see `_running`."""
    return _running


@contextlib.contextmanager
def _running(pipeline: Any, config: Any) -> Iterator[tuple[str, Any, Any]]:
    """(URL, app, uvicorn's server) of a server in a thread of its own; stopped gently at the end."""
    from gemvlm.serving.http import build_app
    from gemvlm.serving.run import server

    app = build_app(pipeline, config)
    listening = server(app, "127.0.0.1", 0, drain_s=PATIENCE_S)
    thread = threading.Thread(target=listening.run, daemon=True)
    thread.start()
    ends = time.monotonic() + PATIENCE_S
    while not listening.started:
        assert time.monotonic() < ends
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listening.servers[0].sockets[0].getsockname()[1]}", app, listening
    finally:
        listening.should_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
