"""7-Scenes' own layout: sequences of NAME.color.png, NAME.depth.png, NAME.pose.txt in folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gemvlm.curation.sources.asked_frames import Asking
from gemvlm.curation.sources.rgbd_folder import Registration, SevenScenes


def write(folder: Path, pictures) -> SevenScenes:
    for sequence in ("seq-01", "seq-02"):
        for number in range(2):
            stem = folder / "chess" / sequence / f"frame-{number:06d}"
            pictures.picture(stem.with_name(f"{stem.name}.color.png"), number, (96, 128))
            counts = np.full((96, 128), 1000, np.uint16)
            counts[:, 64:], counts[48:, :64], counts[:4] = 2500, 1600, 65535
            Image.fromarray(counts).save(stem.with_name(f"{stem.name}.depth.png"))
            np.savetxt(stem.with_name(f"{stem.name}.pose.txt"), np.eye(4))
    registration = Registration(117.0, (64.0, 48.0), (0.03, 0.0), 105.0, (64.0, 47.0))
    return SevenScenes(folder, registration, asking=Asking(turns=6))
