"""Pictures made to hurt: each is refused with a 4xx that names the field, and none costs memory or time."""

from __future__ import annotations

import base64
import io
import json
import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the server needs gemvlm[serve]")
pytest.importorskip("prometheus_client", reason="the server needs gemvlm[serve]")

from fastapi.testclient import TestClient

from gemvlm.inference import GemPipeline
from gemvlm.serving.http import build_app
from gemvlm.serving.limits import Limits, Refusal, data_url_bytes, decode_image
from gemvlm.serving.service import ServerConfig

LIMITS = Limits(request_bytes=400_000, image_bytes=200_000, image_pixels=1_000_000, images=3)


def saved(form: str, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 90).save(buffer, form)
    return buffer.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(width: int, height: int, pixels: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@cache
def files() -> dict[str, bytes]:
    png, jpeg = saved("PNG"), saved("JPEG")
    wide = png_of(50_000, 50_000, bytes(1000))
    return {
        "empty": b"",
        "noise": bytes(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8)),
        "png cut": png[: len(png) // 2],
        "png header alone": png[:8],
        "png without pixels": png_of(30, 30, b""),
        "png with a broken sum": png[:29] + b"\0\0\0\0" + png[33:],
        "jpeg cut": jpeg[: len(jpeg) * 2 // 3],
        "bomb": wide,
        "bomb below Pillow's own limit": png_of(5000, 5000, bytes(1000)),
        "text bomb": png_of(30, 30, bytes(2730), png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(70_000_000)))),
        "profile bomb": png_of(30, 30, bytes(2730), png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(70_000_000)))),
        "width 0": png_of(0, 10, b""),
        "thin": saved("PNG", (1000, 1)),
        "gif": saved("GIF"),
        "tiff": saved("TIFF"),
        "bmp": saved("BMP"),
        "depth, not colour": saved("PNG", mode="I;16"),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n",
        "pdf": b"%PDF-1.7\n1 0 obj\n",
        "too many bytes": bytes(250_000),
    }


URLS = [
    "", "image.png", "/etc/passwd", "../../../../etc/passwd", "file:///etc/passwd", "file://localhost/etc/passwd",
    "http://127.0.0.1:1/x.png", "https://example.com/x.png", "ftp://example.com/x.png", "javascript:alert(1)",
    "data:", "data:,", "data:image/png,abc", "data:image/png;base64", "data:image/png;base64,",
    "data:image/png;base64,****", "data:image/png;base64,abc", "data:image/png;base64,\u00e9\u00e9",
    "data:image/png;base64, iVBO", "data:image/png;base64,file:///etc/passwd", "DATA:image/png;base64,AAAA",
    "data:" + "a/" * 5000, "data:image/png" + ";a=b" * 500 + ";base64,AAAA", "\ud800",
]  # fmt: skip


@pytest.fixture(scope="module")
def http(nano: GemPipeline) -> Iterator[TestClient]:
    with TestClient(build_app(nano, ServerConfig("nano", LIMITS)), raise_server_exceptions=False) as client:
        yield client


def requests(url: str) -> list[tuple[str, dict]]:
    part = {"type": "image_url", "image_url": {"url": url}}
    message = {"role": "user", "content": [part, {"type": "text", "text": "Hi"}]}
    return [
        ("/v1/chat/completions", {"model": "nano", "messages": [message], "max_tokens": 1}),
        ("/v1/point", {"image": url, "expression": "mug"}),
        ("/v1/depth", {"image": url, "steps": 1}),
    ]


@pytest.mark.parametrize("name", sorted(files()))
def test_hostile_files_are_refused(http: TestClient, data_url: Callable[..., str], name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path, request in requests(data_url(files()[name])):
        reply = http.post(path, json=request)
        assert 400 <= reply.status_code < 500, (path, reply.status_code, reply.text[:200])
        assert "image" in str(reply.json()["error"]) or "content" in str(reply.json()["error"])
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 300_000


@pytest.mark.parametrize("url", URLS)
def test_nothing_but_bytes_is_opened(http: TestClient, url: str) -> None:
    for path, request in requests(url):
        content = json.dumps(request)
        reply = http.post(path, content=content, headers={"Content-Type": "application/json"})
        assert 400 <= reply.status_code < 500, (path, reply.status_code)
        assert "root:" not in reply.text


def test_honest_pictures_pass(http: TestClient, data_url: Callable[..., str]) -> None:
    for form in ("PNG", "JPEG", "WEBP"):
        for path, request in requests(data_url(saved(form), "image/" + form.lower())):
            assert http.post(path, json=request).status_code == 200, (form, path)
    more_than_the_header_says = png_of(90, 90, bytes(20_000_000))
    for content in (more_than_the_header_says, saved("PNG", (1, 1), "L")):
        path, request = requests(data_url(content))[1]
        assert http.post(path, json=request).status_code == 200


def test_a_request_may_be_large_in_many_ways(http: TestClient, data_url: Callable[..., str]) -> None:
    many = requests(data_url(saved("PNG")))[0][1]
    many["messages"][0]["content"] *= 4
    assert http.post("/v1/chat/completions", json=many).status_code == 413
    assert http.post("/v1/point", content=b" " * 500_000).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield from (b"[" * 100_000 for _ in range(10))

    assert http.post("/v1/point", content=pieces()).status_code == 413
    headers = {"Content-Type": "application/json"}
    for body in (b"[" * 300_000, b'{"image": ' * 20_000, b'{"a": ' + b"9" * 200_000 + b"}", b"\xff\xfe", b"", b"null"):
        reply = http.post("/v1/point", content=body, headers=headers)
        assert reply.status_code == 400, (body[:20], reply.status_code)
    assert http.post("/v1/point", content=b"{}", headers={"Content-Length": "9" * 30}).status_code == 413


def test_turned_photographs_stand_upright() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(buffer, "JPEG", exif=exif)
    assert decode_image(buffer.getvalue(), LIMITS, "image").shape == (40, 30, 3)


def test_bytes_are_counted_before_they_are_decoded() -> None:
    url = "data:image/png;base64," + base64.b64encode(bytes(300_000)).decode()
    with pytest.raises(Refusal, match="more than 200,000 bytes") as caught:
        data_url_bytes(url, LIMITS, "image")
    assert caught.value.status == 413
    with pytest.raises(ValueError, match="must be above 0"):
        Limits(images=0)
