"""ScanNet's export: colour larger than depth, calibrations of 4 x 4, a lost pose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gemvlm.curation.sources.asked_frames import Asking
from gemvlm.curation.sources.scannet import ScanNet


def write(folder: Path, pictures) -> ScanNet:
    scene = folder / "scans/scene0000_00"
    for name in ("color", "depth", "pose", "intrinsic"):
        (scene / name).mkdir(parents=True)
    for number in (0, 10, 20):
        Image.fromarray(pictures.pixels(number, (194, 260))).save(scene / f"color/{number}.jpg")
        counts = np.full((96, 128), 1000, np.uint16)
        counts[:, 64:], counts[48:, :64], counts[:4] = 2500, 1600, 0
        Image.fromarray(counts).save(scene / f"depth/{number}.png")
        pose = np.eye(4) if number < 20 else np.full((4, 4), -np.inf)
        np.savetxt(scene / f"pose/{number}.txt", pose)
    for name, scale in (("color", 2.03), ("depth", 1.0)):
        k = np.eye(4)
        k[0, 0] = k[1, 1] = 115.6 * scale
        k[:2, 2] = 64 * scale - 0.5, (48 if name == "depth" else 97 / scale) * scale - 0.5
        np.savetxt(scene / f"intrinsic/intrinsic_{name}.txt", k)
        np.savetxt(scene / f"intrinsic/extrinsic_{name}.txt", np.eye(4))
    return ScanNet(folder / "scans", step=1, asking=Asking(turns=6, up=(0.0, 0.0, 1.0)))
