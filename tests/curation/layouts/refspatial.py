"""`JingkunAn/RefSpatial`: three of its annotation files, names without folders, one tag for several turns."""

from __future__ import annotations

import json
from pathlib import Path

from gemvlm.curation.sources.folder import DepthFormat
from gemvlm.curation.sources.refspatial import RefSpatial


def write(folder: Path, pictures) -> RefSpatial:
    for place in (
        "2D/image/p.png",
        "3D/image_multi_view/m0.png",
        "3D/image_multi_view/m1.png",
        "Simulator/image/s.png",
    ):
        pictures.picture(folder / place, len(place))
        pictures.depth(folder / place.replace("image", "depth"), len(place))
    point = (
        "<image>\nPoint to the cup. Your answer should be formatted as a list of tuples, i.e. [(x1, y1), ...]. "
        "The coordinates should be between 0 and 1, indicating the normalized pixel locations of the points."
    )
    flat = [
        {
            "id": "2d-0",
            "image": ["p.png"],
            "depth": ["p.png"],
            "conversations": [
                {"from": "human", "value": point},
                {"from": "gpt", "value": "[(0.407, 0.852)]"},
                {"from": "human", "value": "Which is taller? (A) the cup (B) the box"},
                {"from": "gpt", "value": "(B)"},
            ],
        }
    ]
    views = [
        {
            "id": "3d-0",
            "image": ["m0.png", "m1.png"],
            "depth": ["m0.png", "m1.png"],
            "conversations": [
                {"from": "human", "value": "<image>\n<image>\nDid the camera turn left?"},
                {"from": "gpt", "value": "No."},
            ],
        }
    ]
    simulated = [
        {
            "id": "sim-0",
            "image": ["s.png"],
            "depth": ["s.png"],
            "conversations": [
                {"from": "human", "value": "<image>\nWhere is free space?"},
                {"from": "gpt", "value": "[(0.1, 0.2), (0.3, 0.4)]"},
            ],
            "thinking": [{"question_type": "vacant", "thinking": "Left of the cup."}],
        }
    ]
    files = {"2D/choice_qa.json": flat, "3D/multi_view_qa.json": views, "Simulator/metadata.json": simulated}
    for name, records in files.items():
        (folder / name).write_text(json.dumps(records, indent=4))
    return RefSpatial(folder, depth=DepthFormat("affine_disparity", source="refspatial"))
