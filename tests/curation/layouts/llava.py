"""LLaVA JSON and Qwen JSONL side by side: images, depth, a system turn, messages in parts, text alone."""

from __future__ import annotations

import json
from pathlib import Path

from gemvlm.curation.sources.conversations import TurnRules
from gemvlm.curation.sources.folder import MILLIMETRE_PNG
from gemvlm.curation.sources.llava import LlavaFolder
from gemvlm.curation.sources.places import Coordinates


def write(folder: Path, pictures) -> LlavaFolder:
    for index in range(3):
        pictures.picture(folder / f"img/{index}.png", index)
        pictures.depth(folder / f"depth/{index}.png", index)
    first = [
        {
            "id": "a",
            "image": "img/0.png",
            "depth": "depth/0.png",
            "conversations": [
                {"from": "system", "value": "Answer briefly."},
                {"from": "human", "value": "<image>\nWhere is the mug?"},
                {"from": "gpt", "value": '[{"point_2d": [500, 250], "label": "mug"}]'},
                {"from": "human", "value": "Where is the box?"},
                {"from": "gpt", "value": '{"bbox_2d": [100, 200, 400, 1000], "label": "box"}'},
            ],
        },
        {"id": "b", "conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    ]
    content = [{"type": "image", "image": "img/1.png"}, {"type": "text", "text": "\nIs a mug there?"}]
    second = [
        {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "no"}]},
        {
            "image": ["img/1.png", "img/2.png"],
            "depth": ["depth/1.png", "depth/2.png"],
            "conversations": [
                {"from": "human", "value": "<image><image>Which is nearer?\nA. first\nB. second"},
                {"from": "gpt", "value": "B. second"},
            ],
        },
    ]
    (folder / "first.json").write_text(json.dumps(first, indent=2))
    (folder / "second.jsonl").write_text("".join(json.dumps(record) + "\n" for record in second))
    rules = TurnRules("llava", coordinates=Coordinates("thousandths"))
    return LlavaFolder(folder, depth=MILLIMETRE_PNG, rules=rules)
