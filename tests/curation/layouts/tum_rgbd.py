"""TUM RGB-D: lists with time stamps that differ, comments, 5000 counts per metre, quaternions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gemvlm.curation.sources.asked_frames import Asking
from gemvlm.curation.sources.tum_rgbd import TumRgbd


def write(folder: Path, pictures) -> TumRgbd:
    sequence = folder / "rgbd_dataset_freiburg1_desk"
    rgb, depth = ["# color images", "# file: 'desk.bag'"], ["# depth maps"]
    poses = ["# timestamp tx ty tz qx qy qz qw"]
    for number in range(4):
        time = 1305031452.791720 + number / 30
        pictures.picture(sequence / f"rgb/{time:.6f}.png", number, (96, 128))
        rgb.append(f"{time:.6f} rgb/{time:.6f}.png")
        if number == 3:
            continue  # nothing was measured at the last picture's time
        counts = np.full((96, 128), 5000, np.uint16)
        counts[:, 64:], counts[48:, :64], counts[:4] = 12500, 8000, 0
        (sequence / "depth").mkdir(exist_ok=True)
        Image.fromarray(counts).save(sequence / f"depth/{time + 0.011:.6f}.png")
        depth.append(f"{time + 0.011:.6f} depth/{time + 0.011:.6f}.png")
        poses.append(f"{time - 0.004:.4f} 1.0 2.0 {number} 0.5 0.5 0.5 0.5")
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", poses)):
        (sequence / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return TumRgbd(folder, step=1, intrinsics=(105.0, 105.0, 63.5, 47.5), asking=Asking(turns=6, up=(0.0, 0.0, 1.0)))
