"""The shipped model, and a picture with the bytes and the data URL that a client would send."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

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
