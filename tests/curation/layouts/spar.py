"""`jasonzhango/SPAR-7M-RGBD`: a file per type and form, pictures and depth by scene, marks in thousandths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gemvlm.curation.sources.spar import Spar

SCENE = "scene0012_01"


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def row(kind: str, count: int, question: str, answer: str, **marks: Any) -> dict[str, Any]:
    color, depth = ("video_color", "video_depth") if count > 10 else ("image_color", "image_depth")
    images = [f"{SCENE}/{color}/{n}.png" for n in range(count)]
    record = {"id": f"{kind}_0", "conversations": talk(question, answer), "image": images, "type": kind}
    if depth == "image_depth":
        record["depth"] = [f"{SCENE}/{depth}/{n}.png" for n in range(count)]
    return record | marks


def write(folder: Path, pictures) -> Spar:
    images = folder / f"spar/scannet/images/{SCENE}"
    for n in range(3):
        pictures.picture(images / f"image_color/{n}.png", n, (240, 320))
        pictures.depth(images / f"image_depth/{n}.png", n, (120, 160))
    for n in range(12):
        pictures.picture(images / f"video_color/{n}.png", n)
    (images / "intrinsic").mkdir()
    for name, scale in (("color", 1.0), ("depth", 0.5)):
        k = [[300 * scale, 0, 160 * scale - 0.5, 0], [0, 300 * scale, 120 * scale - 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        text = "\n".join(" ".join(map(str, line)) for line in k)
        (images / f"intrinsic/intrinsic_{name}.txt").write_text(text + "\n")
    rows = {
        ("depth_prediction_oo_mv", "fill"): row(
            "depth_prediction_oo_mv", 3, "How far is the mug (red point), in meters?", "1.5",
            red_point=[[395, 89]], blue_point=[[494, 620]], green_point=[[878, 737]], point_img_idx=[[0, 2, 1]],
        ),
        ("obj_spatial_relation_oo", "select"): row(
            "obj_spatial_relation_oo", 1, "Where is the box (blue bbox)?\nA. left\nB. right\nC. above\nD. below", "C",
            red_bbox=[[200, 300, 400, 500]], blue_bbox=[[600, 300, 800, 700]],
        ),
        ("position_matching", "fill"): row(
            "position_matching", 2, "Where is the red object in the second image?", "[100, 200, 300, 400]",
            red_bbox=[[200, 300, 400, 500]], bbox_img_idx=[[0, 1]],
        ),
        ("obj_count", "sentence"): row("obj_count", 12, "How many chairs are there?", "There are 4 chairs."),
        ("spatial_imagination_map_mv", "sentence"): row(
            "spatial_imagination_map_mv", 2, "Map object0 and object1.", "object0 is left of object1.",
            bbox_list=[[[100, 100, 300, 300], [500, 500, 900, 900]]], bbox_img_idx=[[1, 0]],
        ),
    }  # fmt: skip
    for (kind, form), record in rows.items():
        path = folder / f"spar/scannet/qa_jsonl/train/{kind}/{form}/{form}_1.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record) + "\n")
    return Spar(folder)
