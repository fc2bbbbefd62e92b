"""`Inevitablevalor/MindCube`: one JSONL whose questions hold their options, several pictures each."""

from __future__ import annotations

import json
from pathlib import Path

from gemvlm.curation.sources.mindcube import MindCube


def write(folder: Path, pictures) -> MindCube:
    rows = []
    for index in range(3):
        kind = ("among", "around", "rotation")[index]
        names = [f"other_all_image/{kind}/group{index}/{view}_frame.png" for view in range(2 + index)]
        for view, name in enumerate(names):
            pictures.picture(folder / "data" / name, 10 * index + view)
        row = {
            "id": f"{kind}_group{index}_q{index}_1_2",
            "category": ["perpendicular", "P-P"],
            "type": "two_view_counterclockwise",
            "meta_info": [[4], [2, ["mug", "box"], ["None", "face"]]],
            "question": "Based on these images (image 1 and 2), from view 2, what is to the left of the mug? "
            "A. White wall B. Brown box C. Door (half open) D. Window",
            "images": names,
            "gt_answer": "BAD"[index],
        }
        rows.append(row)
    (folder / "data/raw").mkdir()
    (folder / "data/raw/MindCube_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return MindCube(folder)
