"""What a model makes of the pictures inside the package, on one page: words, points, depth and places in space.

gemvlm demo --out out/demo
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gemvlm.depth_map import point_cloud
from gemvlm.figure import DepthRow, Exchange, Report, depth_panel, draw_points_boxes
from gemvlm.inference import GemPipeline, LocateRequest, Location, load
from gemvlm.inference.examples import Example, examples
from gemvlm.recipes.data import progress

THINGS = 4
"""Asked about in one picture."""


def demonstrate(model: str, out: Path, device: str | None = None) -> Path:
    """Writes `index.html` and a point cloud `NAME.ply` of each picture to `out`; returns the page."""
    pipeline = load(model, device)
    out.mkdir(parents=True, exist_ok=True)
    page = Report(
        f"What {model} sees",
        "Three simulated tables that it has never seen. Nothing here is chosen by how well it went.",
    )
    for example in progress(examples(), len(examples()), "looking"):
        _show(page, pipeline, example, out)
    page.heading("Try it on your own picture")
    page.details(
        "commands",
        f'gemvlm ask {model} desk.png "What is on the table?"\n'
        f'gemvlm point {model} desk.png "red mug" --out marked.png\n'
        f"gemvlm depth {model} desk.png --out depth\n"
        f'gemvlm locate {model} desk.png "red mug" --fov 55 --cloud desk.ply',
    )
    return page.write(out / "index.html")


def _show(page: Report, pipeline: GemPipeline, example: Example, out: Path) -> None:
    image, truth, things = example.image(), example.depth(), example.things[:THINGS]
    requests = [LocateRequest(image, name, example.view) for name in things]
    requests += [LocateRequest(image, name, example.view, depth=truth) for name in things]
    found = pipeline.locate_batch(requests)
    own, measured = found[: len(things)], found[len(things) :]
    painted = pipeline.depth(image).depth
    point_cloud(image, painted, example.view).save(out / f"{example.name}.ply")
    page.heading(example.name.replace("-", " ").capitalize())
    marked = [place for place in own if place.point is not None]
    picture = draw_points_boxes(
        image, [(p.point.x, p.point.y) for p in marked if p.point], labels=[p.expression for p in marked]
    )
    first, second = things[:2]
    questions = (
        f"Which is further left in the image, the {first} or the {second}?",
        f"Which is closer to the camera, the {first} or the {second}?",
        f"What must be removed, in order, to lift the {first}?",
    )
    answers = [pipeline.describe(image), *pipeline.ask_batch([(image, question) for question in questions])]
    asked = ("Describe the scene.", *questions)
    page.conversation(
        picture, [Exchange(question, answer.text) for question, answer in zip(asked, answers, strict=True)]
    )
    page.figure(depth_panel([DepthRow(image, painted.values, truth.values, truth.valid)]))
    page.table(
        ("thing", "by true depth", "by the model's own depth", "apart"),
        [(p.expression, _place(q), _place(p), _apart(p, q)) for p, q in zip(own, measured, strict=True)],
        f"Where the things are, in metres of the world, by the point and the depth. The whole picture as coloured "
        f"points: `{example.name}.ply`.",
    )


def _place(found: Location) -> str:
    return found.missing or "–" if found.world_m is None else " ".join(f"{value:+.2f}" for value in found.world_m)


def _apart(one: Location, other: Location) -> str:
    if one.world_m is None or other.world_m is None:
        return "–"
    return f"{100 * float(np.linalg.norm(np.subtract(one.world_m, other.world_m))):.0f} cm"
