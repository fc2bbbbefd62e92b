"""Pictures by address: from the hosts that are allowed, and nothing else from there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gemvlm.serving.fetch import fetch_image
from gemvlm.serving.limits import Limits, Refusal

LIMITS = Limits(image_bytes=1000)


class Shelf(BaseHTTPRequestHandler):
    """Bytes under /small and /large?size=big, a way to elsewhere under /moved."""

    def do_GET(self) -> None:
        bodies = {"/small": b"picture", "/large?size=big": bytes(5000), "/moved": b""}
        self.send_response(302 if self.path == "/moved" else 200 if self.path in bodies else 404)
        if self.path == "/moved":
            self.send_header("Location", "/small")
        self.end_headers()
        self.wfile.write(bodies.get(self.path, b""))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_allowed_host_is_asked(host: str) -> None:
    assert fetch_image(f"http://{host}/small", (host,), LIMITS, "image") == b"picture"


@pytest.mark.parametrize(
    ("path", "code"),
    [("/large?size=big", "image_too_large"), ("/moved", "image_not_fetched"), ("/none", "image_not_fetched")],
)
def test_large_moved_and_missing(host: str, path: str, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        fetch_image(f"http://{host}{path}", (host,), LIMITS, "image")
    assert caught.value.code == code


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/small", "http://user@{}/small", "http://{}.example.org/small", "ftp://{}/small", "//{}/small",
        "http://[::1/small", "file:///etc/passwd", "http://169.254.169.254/latest", "",
    ],
)  # fmt: skip
def test_others_are_not(host: str, url: str) -> None:
    with pytest.raises(Refusal, match="not fetched from there"):
        fetch_image(url.format(host), (host,), LIMITS, "image")


def test_names_that_break_a_request_are_refused(host: str) -> None:
    with pytest.raises(Refusal) as caught:
        fetch_image(f"http://{host}/a b\r\nX: y", (host,), LIMITS, "image")
    assert caught.value.status == 400


def test_nobody_listens() -> None:
    with pytest.raises(Refusal, match="could not be fetched"):
        fetch_image("http://127.0.0.1:9/x", ("127.0.0.1:9",), LIMITS, "image")
