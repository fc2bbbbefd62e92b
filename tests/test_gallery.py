"""The page to leaf through: self-contained, its data inert whatever it says."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from gemvlm.figure.gallery import Card, Exchanged, GalleryPage, Mark, Shown, area_picture, thumbnail

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def page_of(*cards: Card) -> str:
    page = GalleryPage("A set", EVIL)
    page.heading("Look")
    page.browser("samples", cards)
    return page.to_html()


def card(words: str = "A mug.") -> Card:
    shown = Shown(thumbnail(np.zeros((8, 8, 3), np.uint8)), note=words)
    talk = Exchanged(f"Where is {words}?", "<place:0>", words, marks=(Mark("point", (0.25, 0.75)),))
    return Card(words, words, (shown,), (talk,), {"family": (words,)})


def test_words_from_anywhere_never_become_markup() -> None:
    html = page_of(card(EVIL), card())
    assert "<script>alert" not in html and "<img src=x" not in html
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data)[0]["title"] == EVIL


def test_the_policy_allows_this_page_s_script_and_no_other() -> None:
    html = page_of(card())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None and "default-src 'none'" in policy[1]
    script = re.search(r"<script>(.*)</script>\n</body>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[1]


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    html = page_of(card())
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))
    assert "://" not in html.replace("http://www.w3.org/2000/svg", "")


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_pictures_are_bounded_and_small_ones_keep_their_pixels() -> None:
    assert max(decoded(thumbnail(np.zeros((600, 900, 3), np.uint8))).size) == 288
    assert decoded(thumbnail(np.zeros((96, 64, 3), np.uint8))).size == (64, 96)
    assert thumbnail(np.zeros((0, 5, 3), np.uint8)) == ""


def test_an_area_is_see_through_elsewhere() -> None:
    mask = np.zeros((640, 320), bool)
    mask[:320] = True
    area = np.asarray(decoded(area_picture(mask)).convert("RGBA"))
    assert max(area.shape) <= 160 and (area[: len(area) // 2, :, 3] > 0).all() and (area[-1, :, 3] == 0).all()
