"""`array/SAT`: Parquet rows of encoded pictures, question, options, correct option."""

from __future__ import annotations

from pathlib import Path

from gemvlm.curation.sources.sat import Sat


def write(folder: Path, pictures) -> Sat:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "image_bytes": [pictures.encoded(index), pictures.encoded(index + 9)][: 1 + index % 2],
            "question": "Did the camera rotate left or right?",
            "answers": ["rotated left", "rotated right in the first frame"],
            "correct_answer": ["rotated left", "rotated right in the first frame"][index % 2],
            "question_type": "action_sequence",
        }
        for index in range(4)
    ]
    schema = pa.schema(
        [
            ("image_bytes", pa.list_(pa.binary())),
            ("question", pa.string()),
            ("answers", pa.list_(pa.string())),
            ("correct_answer", pa.string()),
            ("question_type", pa.string()),
        ]
    )
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table, folder / "SAT_train.parquet", row_group_size=2, write_page_checksum=True)
    return Sat(folder)
