"""The commands start what their options say."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server needs gemvlm[serve]")
pytest.importorskip("prometheus_client", reason="the server needs gemvlm[serve]")

import tyro

from gemvlm.commands import serving
from gemvlm.inference import GemPipeline


class Started:
    """Stands in for uvicorn: remembers what it was to serve."""

    last: Started

    def __init__(self, app: Any, host: str, port: int, **_: Any) -> None:
        Started.last = self
        self.app, self.address, self.ran = app, (host, port), False

    def run(self) -> None:
        self.ran = True


def test_serve(nano: GemPipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("gemvlm.serving.run.server", Started)
    monkeypatch.setattr("gemvlm.inference.load", lambda *_: nano)
    monkeypatch.setenv("GEMVLM_API_KEY", "secret-key")
    words = "some/folder --port 1234 --max-pixels 9999 --image-hosts a.org b.org:80 --seconds 5 --batch-size 2"
    tyro.cli(serving.serve, args=words.split())
    service = Started.last.app.state.service
    config = service.config
    assert Started.last.ran and Started.last.address == ("127.0.0.1", 1234)
    assert (config.model, config.api_key, config.image_hosts) == ("folder", "secret-key", ("a.org", "b.org:80"))
    assert (config.limits.image_pixels, config.limits.seconds, service.engine.queue.batch_size) == (9999, 5.0, 2)
    assert "secret-key" not in repr(config) + caplog.text
    service.engine.queue.close()


def test_page(nano: GemPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the page needs gemvlm[web]")
    monkeypatch.setattr("gemvlm.serving.run.server", Started)
    monkeypatch.setattr("gemvlm.serving.page.build_page", lambda pipeline, name: (pipeline, name))
    monkeypatch.setattr("gemvlm.inference.load", lambda *_: nano)
    tyro.cli(serving.page, args=["nano", "--port", "4321"])
    assert Started.last.app == (nano, "nano")
    assert Started.last.address == ("127.0.0.1", 4321) and Started.last.ran
