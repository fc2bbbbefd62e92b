"""Depth targets for a batch of images that are no `Sample`s: a stranger's training with `model.attach`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gemvlm.batch import Target
from gemvlm.data.collate import keyed
from gemvlm.data.targets.depth import DepthTarget
from gemvlm.depth_map import DepthMap, Encoding, encode, target_size


def depth_targets(
    depths: Sequence[DepthMap | None],
    names: Sequence[object],
    encoding: Encoding,
    height: int | None = None,
    width: int | None = None,
) -> list[Target]:
    """One target for each image of the batch that has depth.

    `depths` holds the z-depth of every image of the batch, sample after sample, None for an image without; `names` says
    what each is (a file, (sample id, image)), and seeds its noise: the same name in two places draws the same. Without
    a size each picture follows the published rule: long side 448, both sides multiples of 32. ValueError unless there
    are as many names as depths, and for distances along the ray.
    """
    if len(depths) != len(names):
        raise ValueError(f"{len(depths)} depths but {len(names)} names; give one of each for every image of the batch")
    targets = []
    for image, (depth, name) in enumerate(zip(depths, names, strict=True)):
        if depth is None or not depth.valid.any():
            continue
        rows, columns = target_size(*depth.values.shape)
        made = encode(depth, encoding, height or rows, width or columns)
        picture, valid = torch.from_numpy(made.picture), torch.from_numpy(made.valid)
        targets.append(Target(DepthTarget.kind, image, picture, valid, keyed(name)))
    return targets
