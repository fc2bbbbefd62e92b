"""What a server takes from strangers: how much, of which sort, and the refusal that says why not.

Sizes are checked before what they would cost: bytes before decoding base64, pixels in a file's header before decoding
the picture. A picture travels as bytes only: no name that a request holds is ever opened as a file.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gemvlm.depth_map import DepthMap
from gemvlm.inference.images import read_image

FORMATS = ("PNG", "JPEG", "WEBP")
"""Decoders that strangers may reach; Pillow's other forty are not opened."""

MILLIMETRES = 1000

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]{1,40}/[\w.+-]{1,80})?(?:;[\w.+-]{1,40}=[\w.+-]{1,80}){0,4};base64,")


@dataclass(frozen=True)
class Limits:
    """The most that one request may bring and ask for. Seconds count from the last byte of a request.

    `all_pixels` are those of all its pictures together, `depth_work` the steps of all paintings of its ensemble.
    """

    request_bytes: int = 32 * 2**20
    upload_seconds: float = 30.0
    images: int = 16
    image_bytes: int = 16 * 2**20
    image_pixels: int = 16_777_216
    all_pixels: int = 67_108_864
    text_characters: int = 100_000
    messages: int = 64
    new_tokens: int = 1024
    depth_steps: int = 100
    depth_ensemble: int = 8
    depth_work: int = 240
    seconds: float = 120.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"limits: {name} is {value}; it must be above 0")


class Refusal(Exception):  # noqa: N818 - not every refusal is an error of ours
    """Why a request is not served: an HTTP status, a short code, words for people, and the field that is to blame."""

    def __init__(
        self, message: str, *, status: int = 400, code: str = "invalid_value", param: str | None = None, wait_s: int = 0
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.param, self.wait_s = message, status, code, param, wait_s


def data_url_bytes(url: str, limits: Limits, field: str) -> bytes:
    """The bytes inside a `data:...;base64,...` URL. Refusal if it is another kind of URL, damaged, or too long."""
    head = _DATA_URL.match(url[:600])
    if head is None:
        raise Refusal(
            f"{field}: not a data URL (it begins with {printable(url[:24])!r}); send the picture's own bytes: "
            "data:image/png;base64,...",
            code="invalid_image_url",
            param=field,
        )
    if (len(url) - head.end()) * 3 // 4 > limits.image_bytes + 2:
        raise _too_large(f"{field}: the picture has more than {limits.image_bytes:,} bytes", field)
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(
            f"{field}: the base64 is damaged; encode the file again", code="invalid_base64", param=field
        ) from None


def decode_image(content: bytes, limits: Limits, field: str) -> UInt8[np.ndarray, "H W 3"]:
    """An upright RGB array of a PNG, JPEG or WebP file. Refusal names `field`, what is wrong and the remedy."""
    opened = _opened(content, FORMATS, limits, field)
    try:
        with opened:
            return read_image(opened)
    except ValueError as error:
        raise Refusal(str(error).replace("image", field, 1), code="invalid_image", param=field) from None
    except Exception:  # as below
        raise _damaged(field) from None


def decode_depth(content: bytes, limits: Limits, field: str) -> DepthMap:
    """Measured z-depth of a 16-bit PNG in millimetres (0 = unknown). Refusal as for pictures."""
    opened = _opened(content, ("PNG",), limits, field)
    if not opened.mode.startswith("I"):
        raise Refusal(
            f"{field}: the PNG has mode {opened.mode}; send 16 bits in one channel, in millimetres",
            code="invalid_depth",
            param=field,
        )
    try:
        with opened:
            return DepthMap.from_values(np.asarray(opened).astype(np.uint16) / np.float32(MILLIMETRES), source="client")
    except Exception:  # as below
        raise _damaged(field) from None


def _opened(content: bytes, formats: tuple[str, ...], limits: Limits, field: str) -> Image.Image:
    """A file whose header was read and whose size is within limits; no pixel is decoded yet."""
    if len(content) > limits.image_bytes:
        raise _too_large(f"{field}: {len(content):,} bytes are more than {limits.image_bytes:,}", field)
    try:
        opened = Image.open(io.BytesIO(content), formats=formats)
        width, height = opened.size
    except Image.DecompressionBombError:
        raise _too_large(f"{field}: far more than {limits.image_pixels:,} pixels", field) from None
    except Exception:  # a decoder may fail on hostile bytes in any way: it is the picture's fault, not ours
        raise Refusal(
            f"{field}: not a picture that can be read; send {' or '.join(formats)}", code="invalid_image", param=field
        ) from None
    if width * height > limits.image_pixels:
        raise _too_large(f"{field}: {width} x {height} pixels are more than {limits.image_pixels:,}", field)
    return opened


def _damaged(field: str) -> Refusal:
    return Refusal(
        f"{field}: the picture is damaged or cut off; write the file again", code="invalid_image", param=field
    )


def printable(text: str) -> str:
    """Text that can be sent in a reply: halves of characters (lone surrogates) become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _too_large(message: str, field: str) -> Refusal:
    return Refusal(f"{message}; send a smaller one", status=413, code="image_too_large", param=field)
