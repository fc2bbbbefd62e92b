"""Pictures by address, from hosts that a server's owner allows: exact names, no redirects, bounded bytes and time."""

from __future__ import annotations

import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from gemvlm.serving.limits import Limits, Refusal

TIMEOUT_S = 10.0
PIECE = 2**16


def fetch_image(url: str, hosts: tuple[str, ...], limits: Limits, field: str) -> bytes:
    """The bytes at `url`, whose "host" or "host:port" must be one of `hosts`. Refusal on any failure."""
    try:
        parts = urlsplit(url)
        netloc, path = parts.netloc, parts.path or "/"
    except ValueError:
        netloc, path, parts = "", "", urlsplit("")
    if parts.scheme not in ("http", "https") or netloc not in hosts:
        raise Refusal(
            f"{field}: pictures are not fetched from there; send the picture's own bytes: data:image/png;base64,...",
            code="invalid_image_url",
            param=field,
        )
    target = path + ("?" + parts.query if parts.query else "")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(netloc, timeout=TIMEOUT_S)
    try:
        return _read(connection, target, limits, field)
    except (OSError, HTTPException, ValueError) as error:
        raise Refusal(
            f"{field}: the picture could not be fetched ({type(error).__name__}); send its bytes",
            code="image_not_fetched",
            param=field,
        ) from None
    finally:
        connection.close()


def _read(connection: HTTPConnection, target: str, limits: Limits, field: str) -> bytes:
    ends = time.monotonic() + TIMEOUT_S
    connection.request("GET", target, headers={"Accept": "image/*"})
    response = connection.getresponse()
    if response.status != 200:
        raise HTTPException(f"status {response.status}")
    content = b""
    while piece := response.read1(PIECE):
        content += piece
        if len(content) > limits.image_bytes:
            raise Refusal(
                f"{field}: the picture has more than {limits.image_bytes:,} bytes; send a smaller one",
                status=413,
                code="image_too_large",
                param=field,
            )
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:  # closed by http.client once all has come
            connection.sock.settimeout(left)
    return content
