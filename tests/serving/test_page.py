# ruff: noqa: E402 - what a test needs may be absent
"""The page: what its buttons do, what it refuses, and that it asks nobody but itself."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

gradio = pytest.importorskip("gradio", reason="the page needs gemvlm[web]")

from fastapi.testclient import TestClient

from gemvlm.depth_map import DepthMap
from gemvlm.inference import GemPipeline
from gemvlm.inference.examples import examples
from gemvlm.serving.limits import Limits
from gemvlm.serving.page import Page, build_page
from gemvlm.serving.surface import depth_surface

EXAMPLE = str(examples()[0].path)


@pytest.fixture(scope="module")
def page(nano: GemPipeline) -> Page:
    return Page(nano, Limits(image_pixels=100_000, image_bytes=300_000))


@pytest.fixture(scope="module")
def site(nano: GemPipeline) -> Iterator[TestClient]:
    before = Image.MAX_IMAGE_PIXELS
    with TestClient(build_page(nano, "nano")) as client:
        yield client
    Image.MAX_IMAGE_PIXELS = before


def test_an_answer_grows_and_ends_with_its_places(page: Page, nano: GemPipeline) -> None:
    thing = examples()[0].things[0]
    steps = list(page.point(EXAMPLE, thing))
    expected = nano.ask(EXAMPLE, f"Point to the {thing}.")
    assert steps[-1][0] == expected.text
    assert steps[-1][1].shape[:2] == (576, 576)
    if expected.points:
        assert (steps[-1][1] != steps[0][1]).any()
    assert all(later[0].startswith(earlier[0]) for earlier, later in pairwise(steps))


def test_depth_can_be_turned_around(page: Page) -> None:
    (picture, colours), surface, words = page.depth(EXAMPLE, 2, 0, 57)
    assert picture.shape == colours.shape
    assert re.search(r"\d\.\d\d to \d\.\d\d m\. Kind: `metric_z`", words)
    assert Path(surface).read_bytes()[:4] == b"glTF"


def test_what_the_page_refuses(page: Page, tmp_path: Path) -> None:
    (tmp_path / "noise.png").write_bytes(b"noise")
    Image.new("RGB", (400, 400)).save(tmp_path / "large.png")
    (tmp_path / "heavy.png").write_bytes(bytes(400_000))
    for path, question, words in (
        (None, "?", "Choose a picture"),
        (EXAMPLE, " ", "Write a question"),
        (EXAMPLE, "x " * 5000, "500 characters"),
        (str(tmp_path / "noise.png"), "?", "not a picture"),
        (str(tmp_path / "large.png"), "?", "pixels"),
        (str(tmp_path / "heavy.png"), "?", "bytes"),
    ):
        with pytest.raises(gradio.Error, match=words):
            list(page.ask(path, question))
    with pytest.raises(gradio.Error, match="Name a thing"):
        list(page.box(EXAMPLE, ""))


def test_nothing_is_asked_of_other_hosts(site: TestClient) -> None:
    """Links in the page's description of itself are not fetched; scripts, styles and fonts would be."""
    index = site.get("/").text
    fetched = re.findall(r"""<(?:script|link|img|iframe)[^>]*?(?:src|href)=["']([^"']+)["']""", index)
    assert fetched
    assert [url for url in fetched if url.startswith(("http:", "https:", "//"))] == []
    assert "fonts.googleapis" not in index + site.get("/theme.css").text
    assert site.get("/config").json()["analytics_enabled"] is False


def surface_parts(content: bytes) -> tuple[dict, np.ndarray, np.ndarray]:
    """The document, positions and indices of a binary glTF file."""
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size = struct.unpack("<I", content[12:16])[0]
    document = json.loads(content[20 : 20 + size])
    if "accessors" not in document:
        return document, np.zeros((0, 3)), np.zeros((0, 3))
    binary = content[28 + size :]
    views = document["bufferViews"]
    assert sum(view["byteLength"] for view in views) == document["buffers"][0]["byteLength"] == len(binary)
    cut = [binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]] for view in views]
    return document, np.frombuffer(cut[0], "<f4").reshape(-1, 3), np.frombuffer(cut[2], "<u4").reshape(-1, 3)


def test_a_surface_is_cut_where_depth_jumps() -> None:
    z = np.full((20, 30), 2.0)
    z[:, 15:] = 1.0
    z[0, 0] = 0.0
    content = depth_surface(np.zeros((20, 30, 3), np.uint8), DepthMap.from_values(z), 60.0)
    document, places, triangles = surface_parts(content)
    assert len(triangles) == 2 * (19 * 28 - 1)
    assert document["accessors"][0]["count"] == len(places) == 599
    edges = np.linalg.norm(places[triangles] - np.roll(places[triangles], 1, axis=1), axis=-1)
    assert edges.max() < 0.4
    tall = places[:, 1].max() - places[:, 1].min()
    assert tall == pytest.approx(2.0 * 2 * np.tan(np.radians(30)) * 19 / 20, rel=1e-3)


def test_surfaces_of_depth_without_a_unit_and_of_nothing() -> None:
    image, ramp = np.zeros((64, 64, 3), np.uint8), np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    for kind in ("affine_depth", "affine_disparity", "affine_log_depth", "affine_sqrt_disparity"):
        _, places, triangles = surface_parts(depth_surface(image, DepthMap.from_values(ramp, kind), 60.0))
        far = np.ptp(places[:, 2])
        assert 1.5 < far <= 2.01 and len(triangles) > 100, (kind, far)
    assert len(surface_parts(depth_surface(image, DepthMap.from_values(np.zeros((64, 64))), 60.0))[1]) == 0
