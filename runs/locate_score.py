"""How far `locate` of a model is from the truth; see `gemvlm.recipes.locate_score`.

python runs/locate_score.py nano --out out/locate
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro import cli
from tyro.conf import Positional

from gemvlm.recipes.locate_score import score_locate


def main(
    model: Annotated[Positional[str], "MODEL"],
    *,
    out: Path,
    scenes: int = 200,
    frames: Path | None = None,
    registration: Literal["kinect-7scenes"] | None = None,
    steps: int = 30,
    ensemble: int = 1,
    device: str | None = None,
) -> None:
    """Score on held-out tabletop scenes, or on a folder of RGB-D frames.

    Args:
        model: Checkpoint folder, hub name, or the name of a shipped model.
        out: Folder for locate.json and locate.md.
        scenes: So many tabletop scenes.
        frames: RGB-D frames instead of the tabletop.
        registration: How the depth of these frames lies in their colour image.
        steps: Integration steps of the generator.
        ensemble: Median of so many paintings.
        device: cpu, cuda or mps; the best there is by default.
    """
    found = score_locate(
        model,
        out,
        scenes=scenes,
        frames=frames,
        registration=registration,
        steps=steps,
        ensemble=ensemble,
        device=device,
    )
    print(found.to_markdown())


if __name__ == "__main__":
    cli(main)
