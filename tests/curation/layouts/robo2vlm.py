"""`keplerccc/Robo2VLM-1`: Parquet with pictures in it; `choices` is Python's way of writing a list, as a string."""

from __future__ import annotations

from pathlib import Path

from gemvlm.curation.sources.robo2vlm import Robo2Vlm


def write(folder: Path, pictures) -> Robo2Vlm:
    import pyarrow as pa
    import pyarrow.parquet as pq

    choices = [
        "['Yes', 'No', 'Cannot be determined']",
        "['Yellow', \"the arm's base\", 'Red', 'None of the above', 'Blue']",
        "['left', 'right']",
    ]
    questions = ["Is the gripper stable?", "Which colored point is closest to the camera?", "Where does it go next?"]
    rows = {
        "id": ["droid_lab_14346_q9", "droid_lab_14346_q12", "bridge_7_q0"],
        "question": questions,
        "choices": choices,
        "correct_answer": [1, 1, 0],
        "image": [{"bytes": pictures.encoded(i), "path": f"{i}.png"} for i in range(3)],
    }
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.table(rows), folder / "data/train-00000-of-00001.parquet", row_group_size=2)
    pq.write_table(pa.table(rows).slice(0, 1), folder / "data/test-00000-of-00001.parquet")
    return Robo2Vlm(folder)
