"""`nyu-visionx/VSI-590K`: a video with options, a video with a number, an image."""

from __future__ import annotations

import json
from pathlib import Path

from gemvlm.curation.sources.vsi_590k import Vsi590K


def write(folder: Path, pictures) -> Vsi590K:
    pictures.video(folder / "arkitscenes/1.mp4", 1)
    pictures.picture(folder / "procthor/2.jpg", 2)

    def line(media: dict[str, str], kind: str, question: str, answer: str) -> str:
        talk = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        return json.dumps({**media, "conversations": talk, "question_type": kind}) + "\n"

    film, frames = {"video": "arkitscenes/1.mp4"}, "<video>\nThese are frames of a video.\n"
    options = "A. chair\nB. table\nAnswer with the option's letter from the given choices directly."
    (folder / "vsi_590k.jsonl").write_text(
        line(film, "relative_distance_object", f"{frames}Which is nearer to the door?\n{options}", "B")
        + line(film, "absolute_distance_object", f"{frames}How far are they apart, in meters?", "2.5")
        + line({"image": "procthor/2.jpg"}, "absolute_count", "<image>\nHow many chairs?", "3")
    )
    return Vsi590K(folder)
