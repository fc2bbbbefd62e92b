"""A page to try a model on: ask about a picture, point, see its depth, turn it around. Works without a network.

    build_page(gemvlm.load("nano"), "nano")      # an ASGI application

Fonts are the system's, nothing is counted or sent anywhere, and what a visitor uploads passes the server's limits.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gemvlm.figure import colour_depth, draw_points_boxes, enlarge
from gemvlm.figure.pictures import Enlarged
from gemvlm.inference import Answer, GemPipeline
from gemvlm.inference.examples import examples
from gemvlm.inference.phrases import box_of, point_to
from gemvlm.serving.engine import Picture
from gemvlm.serving.limits import Limits, Refusal, decode_image
from gemvlm.serving.surface import depth_surface

SHOWN_SIDE = 640
LONGEST_QUESTION = 500
MODEL = "model"
"""All that touches the model has this name in Gradio's queue: one at a time."""
WAITING = 32
KEPT_BUTTONS = ["download", "fullscreen"]
"""Of a picture. Gradio's third, "share", would send it to a hub."""
FONT, MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
STYLE = """
.gradio-container main.fillable { max-width: 1180px !important; margin: 0 auto !important; }
#head h1 { font-size: clamp(1.25rem, 5vw, 2.1rem); letter-spacing: -.02em; margin: .4rem 0 .2rem; }
#head p { opacity: .75; max-width: 46rem; margin: 0; text-wrap: balance; }
#said textarea { font-size: 1.1rem; }
.filled img { width: 100%; height: 100%; object-fit: contain; }
"""


class Page:
    """What the page's buttons do. Pictures come as names of files that Gradio keeps, and are read within limits."""

    def __init__(self, pipeline: GemPipeline, limits: Limits) -> None:
        self.pipeline, self.limits = pipeline, limits

    @staticmethod
    def example(number: int) -> tuple[Picture, str, str]:
        """A picture to begin with, a question that asks to look at two things, and the name of one."""
        chosen = examples()[number]
        first, second = chosen.things[:2]
        return chosen.image(), f"Which is closer to the camera, the {first} or the {second}?", first

    def ask(self, path: str | None, question: str) -> Iterator[tuple[str, Enlarged]]:
        """The answer as it grows, and at its end the picture with the places that it names."""
        picture = self._read(path)
        if not question.strip():
            raise _told("Write a question first.")
        if len(question) > LONGEST_QUESTION:
            raise _told(f"A question may have {LONGEST_QUESTION} characters, this has {len(question)}.")
        import gradio

        text, shown = "", enlarge(picture, SHOWN_SIDE)
        for piece in self._stream(picture, question):
            text += piece
            yield text, shown
            shown = gradio.skip()  # what stands there already is not encoded again for every word
        yield text, self._drawn(picture, text)

    def point(self, path: str | None, expression: str) -> Iterator[tuple[str, Enlarged]]:
        yield from self.ask(path, self._asked(point_to, expression))

    def box(self, path: str | None, expression: str) -> Iterator[tuple[str, Enlarged]]:
        yield from self.ask(path, self._asked(box_of, expression))

    def depth(
        self, path: str | None, steps: float | int, seed: float | int, fov_y_deg: float | int
    ) -> tuple[tuple[Enlarged, Enlarged], str, str]:
        """Picture and depth for the slider, the name of a surface to turn around, and what the depth is."""
        picture = self._read(path)
        prediction = self.pipeline.depth(picture, steps=int(steps), seed=int(seed))
        depth = prediction.depth
        shown = enlarge(picture, SHOWN_SIDE), enlarge(colour_depth(depth.values, depth.valid), SHOWN_SIDE)
        handle, surface = tempfile.mkstemp(".glb", dir=self._folder())
        with os.fdopen(handle, "wb") as file:
            file.write(depth_surface(picture, depth, float(fov_y_deg)))
        known = depth.values[depth.valid]
        words = "no pixel has depth"
        if known.size:
            near, far = np.percentile(known, [2, 98])
            unit = " m" if depth.is_metric else ", up to an unknown scale and shift"
            words = f"Near is warm, far is cool: {near:.2f} to {far:.2f}{unit}. Kind: `{depth.kind}`."
        return shown, surface, words

    def _stream(self, picture: Picture, question: str) -> Iterator[str]:
        try:
            yield from self.pipeline.ask_stream(picture, question, max_new_tokens=min(256, self.limits.new_tokens))
        except ValueError as error:
            raise _told(str(error)) from None

    def _drawn(self, picture: Picture, text: str) -> Enlarged:
        answer = Answer.from_text(text, self.pipeline.coordinates)
        points = [(point.x, point.y) for point in answer.points]
        boxes = [(box.x0, box.y0, box.x1, box.y1) for box in answer.boxes]
        return draw_points_boxes(picture, points, boxes, side=SHOWN_SIDE)

    def _read(self, path: str | None) -> Picture:
        if path is None:
            raise _told("Choose a picture first.")
        try:
            if Path(path).stat().st_size > self.limits.image_bytes:
                raise _told(f"The file has more than {self.limits.image_bytes:,} bytes.")
            return decode_image(Path(path).read_bytes(), self.limits, "picture")
        except Refusal as refusal:
            raise _told(refusal.message) from None

    @staticmethod
    def _asked(phrase: Callable[[str], str], expression: str) -> str:
        if not expression.strip():
            raise _told("Name a thing first: red mug")
        try:
            return phrase(expression)
        except ValueError as error:
            raise _told(str(error)) from None

    @staticmethod
    def _folder() -> str:
        from gradio.utils import get_upload_folder

        Path(get_upload_folder()).mkdir(parents=True, exist_ok=True)
        return get_upload_folder()


def build_page(pipeline: GemPipeline, name: str, limits: Limits | None = None) -> Any:
    """The page as an ASGI application."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio
    from fastapi import FastAPI

    limits = limits or Limits(image_pixels=4096 * 2048)
    Image.MAX_IMAGE_PIXELS = limits.image_pixels  # Gradio opens uploads before we do
    page = Page(pipeline, limits)
    with gradio.Blocks(title=f"GEM · {name}", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        _lay_out(gradio, page, name)
    blocks.queue(max_size=WAITING, default_concurrency_limit=1)
    return gradio.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=limits.image_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        theme=gradio.themes.Soft(primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=MONO),
        css=STYLE,
    )


def _lay_out(gradio: Any, page: Page, name: str) -> None:
    card = page.pipeline.card
    size = sum(weights.numel() for weights in page.pipeline.gem.parameters()) / 1e6
    gradio.Markdown(
        f"# GEM looks at your picture\n`{name}` · {size:,.0f} million parameters · {card.recipe}, step {card.step:,}. "
        "It answers, points, and paints the depth that it has learnt to see.",
        elem_id="head",
    )
    _, first_question, first_thing = page.example(0)
    shown: dict[str, Any] = {"interactive": False, "format": "png", "height": 420, "buttons": KEPT_BUTTONS}
    with gradio.Row(equal_height=False):
        with gradio.Column(scale=4, min_width=280):
            picture = gradio.Image(
                str(examples()[0].path),
                type="filepath",
                format="png",
                sources=["upload", "clipboard", "webcam"],
                label="Picture",
                height=330,
                buttons=KEPT_BUTTONS,
                elem_classes="filled",
            )
            choices = gradio.Dataset(
                components=[gradio.Image(type="filepath", visible=False)],
                samples=[[str(each.path)] for each in examples()],
                type="index",
                layout="gallery",
                label="Pictures to begin with",
            )
        with gradio.Column(scale=6, min_width=280), gradio.Tabs():
            with gradio.Tab("Ask"):
                question = gradio.Textbox(first_question, label="Question", placeholder="What is left of the red mug?")
                ask = gradio.Button("Ask", variant="primary")
                said = gradio.Textbox(label="Answer", interactive=False, lines=2, elem_id="said")
                places = gradio.Image(label="Places in the answer", **shown)
            with gradio.Tab("Point"):
                expression = gradio.Textbox(first_thing, label="Thing", placeholder="red mug")
                with gradio.Row():
                    point = gradio.Button("Point to it", variant="primary")
                    box = gradio.Button("Box it")
                reply = gradio.Textbox(label="Reply", interactive=False, lines=1)
                pointed = gradio.Image(label="Where", **shown)
            with gradio.Tab("Depth"):
                paint = gradio.Button("Paint the depth", variant="primary")
                words = gradio.Markdown()
                slider = gradio.ImageSlider(label="Picture and depth", interactive=False, format="png")
                surface = gradio.Model3D(label="In 3-D: drag to turn", clear_color=(0.93, 0.94, 0.96, 1.0), height=380)
                with gradio.Accordion("Settings", open=False):
                    steps = gradio.Slider(1, page.limits.depth_steps, 20, step=1, label="Steps of the painter")
                    seed = gradio.Slider(0, 99, 0, step=1, label="Seed")
                    fov = gradio.Slider(20, 100, 57, step=1, label="Vertical field of view in 3-D, degrees")
    begun = [picture, question, expression]
    choices.click(page.example, choices, begun, api_visibility="private", show_progress="hidden")
    shared: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": MODEL}
    gradio.on([ask.click, question.submit], page.ask, [picture, question], [said, places], api_name="ask", **shared)
    named, found = [picture, expression], [reply, pointed]
    gradio.on([point.click, expression.submit], page.point, named, found, api_name="point", **shared)
    box.click(page.box, named, found, api_name="box", **shared)
    paint.click(page.depth, [picture, steps, seed, fov], [slider, surface, words], api_name="depth", **shared)


def _told(message: str) -> Exception:
    """What Gradio shows to the visitor and leaves out of the log."""
    import gradio

    return gradio.Error(message, duration=8, print_exception=False)
