"""Generated depth against the truth, beside what can be had without looking.

A prediction is read as it is ("metric"), or with a scale or a scale and shift fitted over the pixels that are scored,
in depth or in disparity space; "aligned" fits scale and shift in the space of the model's own encoding. What is not
metric is read in its own space alone. Two sets of pixels: all of them, and those of objects, which alone tell
understanding from the habit of a data set. Every method is read in the same way:

    model          painted from the image's states
    constant       the best single depth of the training set
    mean map       each pixel's mean over the training set
    support plane  a plane fitted to the true depth around the objects: knows the table, no object
    unconditional  painted by the model's own generator without an image
    other image    painted by the model from an image of another scene: falls to "unconditional" if the states matter
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from gemvlm.depth_map import DepthMap, Encoding, Space
from gemvlm.evaluation.depth_metrics import Alignment, best_constant, constant_map, mean_map, score, support_plane
from gemvlm.inference.depth import DepthPrediction
from gemvlm.sample import Region, Sample
from gemvlm.statistics import Difference, Interval, mean_interval, paired_difference

Pixels = Literal["all", "objects"]
Reading = Literal["aligned", "metric", "scale, depth", "scale, disparity", "affine, depth", "affine, disparity"]
Mask = Bool[np.ndarray, "H W"]

MODEL = "model"
BLIND = ("constant", "mean map", "support plane", "unconditional")
CONTROL = "other image"
METRICS = ("abs_rel", "delta1", "boundary_f1")
"""Those of every table."""
ALL_METRICS = (*METRICS, "sq_rel", "rmse", "log_rmse", "si_log", "delta2", "delta3")
READINGS: dict[Reading, Alignment] = {"aligned": "scale_shift", "metric": "metric"}
"""Those of every table."""
FURTHER_READINGS: dict[Reading, tuple[Alignment, Space]] = {
    "scale, depth": ("scale", "depth"),
    "scale, disparity": ("scale", "disparity"),
    "affine, depth": ("scale_shift", "depth"),
    "affine, disparity": ("scale_shift", "disparity"),
}
LEAST_PIXELS = 16
"""An image with fewer object pixels is left out of the object scores, and counted."""


@runtime_checkable
class DepthPainter(Protocol):
    """What is asked of a model; `inference.GemPipeline` is one."""

    @property
    def encoding(self) -> Encoding: ...

    def depth_batch(
        self, images: Sequence[Any], *, steps: int, guidance: float, seed: int, unconditional: bool = False
    ) -> list[DepthPrediction]: ...


@dataclass(frozen=True)
class ScoredFrame:
    """One frame to be scored: its true depth, and the pixels of objects if they are known."""

    scene: str
    image: np.ndarray
    truth: DepthMap
    objects: Mask | None


@dataclass(frozen=True)
class ImageScore:
    """One method on one image in one reading; `values` by name of the metric, NaN where it is undefined."""

    method: str
    pixels: Pixels
    reading: Reading
    scene: str
    image: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class DepthReport:
    """Scores of every image and method.

    "aligned" aligns in `space`; `without_objects` counts images with too few object pixels to be scored on them.
    """

    scores: tuple[ImageScore, ...]
    space: Space
    images: int
    without_objects: int

    def mean(
        self, method: str = MODEL, pixels: Pixels = "objects", reading: Reading = "aligned", metric: str = "abs_rel"
    ) -> Interval:
        """The mean over images with its 95 % interval by scene. ValueError if there is nothing to average."""
        values, scenes = self._known(method, pixels, reading, metric)
        return mean_interval(list(values.values()), list(scenes.values()))

    def methods(self, pixels: Pixels = "objects", reading: Reading = "aligned") -> list[str]:
        """The methods that were scored so."""
        return list(dict.fromkeys(s.method for s in self.scores if (s.pixels, s.reading) == (pixels, reading)))

    def best_blind(self, pixels: Pixels = "objects", reading: Reading = "aligned") -> tuple[str, Interval]:
        """The blind method with the least abs_rel, and its mean."""
        blind = {name: self.mean(name, pixels, reading) for name in self.methods(pixels, reading) if name in BLIND}
        name = min(blind, key=lambda name: blind[name].mean)
        return name, blind[name]

    def against(
        self, method: str, pixels: Pixels = "objects", reading: Reading = "aligned", metric: str = "abs_rel"
    ) -> Difference:
        """Model minus `method` on the same images, paired, by scene."""
        own, scenes = self._known(MODEL, pixels, reading, metric)
        other, _ = self._known(method, pixels, reading, metric)
        shared = [image for image in own if image in other]
        return paired_difference([own[i] for i in shared], [other[i] for i in shared], [scenes[i] for i in shared])

    def _known(
        self, method: str, pixels: Pixels, reading: Reading, metric: str
    ) -> tuple[dict[int, float], dict[int, str]]:
        wanted = (method, pixels, reading)
        found = [
            s
            for s in self.scores
            if (s.method, s.pixels, s.reading) == wanted and np.isfinite(s.values.get(metric, np.nan))
        ]
        if not found:
            raise ValueError(f"depth report: no {metric} of {method!r} over {pixels} pixels, {reading}; see `methods`")
        return {s.image: s.values[metric] for s in found}, {s.image: s.scene for s in found}

    def to_dict(self) -> dict[str, Any]:
        """Means and intervals of everything, for JSON: reading → pixels → method → metric → [mean, low, high]."""
        tree: dict[str, Any] = {"space": self.space, "images": self.images, "without_objects": self.without_objects}
        for reading, pixels in dict.fromkeys((s.reading, s.pixels) for s in self.scores):
            rows = tree.setdefault(reading, {}).setdefault(pixels, {})
            for method in self.methods(pixels, reading):
                rows[method] = {metric: self._triple(method, pixels, reading, metric) for metric in ALL_METRICS}
        return tree

    def _triple(self, method: str, pixels: Pixels, reading: Reading, metric: str) -> list[float] | None:
        try:
            interval = self.mean(method, pixels, reading, metric)
        except ValueError:
            return None
        return [interval.mean, interval.low, interval.high]


def evaluate_depth(
    pipeline: DepthPainter,
    samples: Sequence[Sample],
    train_samples: Sequence[Sample],
    *,
    steps: int = 30,
    guidance: float = 1.0,
    seed: int = 0,
    object_masks: Sequence[Mask] | None = None,
) -> DepthReport:
    """Scores the model on every frame of `samples` that has depth; the blind baselines are fitted on `train_samples`.

    `object_masks` holds one mask per such frame; without it they are read from `Sample.meta["object_mask"]` (the fields
    of a `Region` per frame), and where there are none only all pixels are scored. ValueError if nothing can be scored,
    or if a scene is in both sets.
    """
    items, train = _scored_frames(samples, object_masks), _scored_frames(train_samples)
    if not items or not train:
        raise ValueError(
            f"depth: {len(items)} test frames and {len(train)} training frames have metric depth; give both"
        )
    if shared := {item.scene for item in items} & {item.scene for item in train}:
        raise ValueError(f"depth: {len(shared)} scenes are in both sets, e.g. {min(shared)!r}; split by scene")
    space = pipeline.encoding.space
    methods = _painted(pipeline, items, steps, guidance, seed) | _blind(items, train, space)
    scores: list[ImageScore] = []
    without_objects = 0
    for index, item in enumerate(items):
        masks: dict[Pixels, Mask] = {"all": item.truth.valid}
        if item.objects is not None and (item.objects & item.truth.valid).sum() >= LEAST_PIXELS:
            masks["objects"] = item.objects & item.truth.valid
        without_objects += "objects" not in masks
        for method, of in methods.items():
            for pixels, mask in masks.items():
                prediction = _sized(of(index, pixels), item.truth)
                for reading, (mode, where) in _readings(prediction, space).items():
                    found = score(prediction, item.truth, mask, mode, where)
                    values = {metric: getattr(found, metric) for metric in ALL_METRICS}
                    scores.append(ImageScore(method, pixels, reading, item.scene, index, values))
    return DepthReport(tuple(scores), space, len(items), without_objects)


def _readings(prediction: DepthMap, space: Space) -> dict[Reading, tuple[Alignment, Space]]:
    own: dict[Reading, tuple[Alignment, Space]] = {reading: (mode, space) for reading, mode in READINGS.items()}
    return {**own, **FURTHER_READINGS} if prediction.is_metric else {"aligned": own["aligned"]}


Method = Callable[[int, Pixels], DepthMap]
"""The prediction for the image of that number when those pixels are scored."""


def _painted(
    pipeline: DepthPainter, items: Sequence[ScoredFrame], steps: int, guidance: float, seed: int
) -> dict[str, Method]:
    images = [item.image for item in items]
    paint = partial(pipeline.depth_batch, images, steps=steps, guidance=guidance)
    own = [found.depth for found in paint(seed=seed)]
    free = [found.depth for found in paint(seed=seed + 1, unconditional=True)]
    # Frames of one scene stand beside each other, so half the list away is another scene.
    away = max(1, len(items) // 2)
    return {
        MODEL: lambda index, pixels: own[index],
        "unconditional": lambda index, pixels: free[index],
        CONTROL: lambda index, pixels: own[(index + away) % len(own)],
    }


def _blind(items: Sequence[ScoredFrame], train: Sequence[ScoredFrame], space: Space) -> dict[str, Method]:
    height, width = train[0].truth.values.shape
    truths = [_sized(item.truth, train[0].truth) for item in train]
    with_objects = [item for item in train if item.objects is not None]
    constants: dict[Pixels, float] = {"all": best_constant([item.truth for item in train])}
    constants["objects"] = constants["all"]
    if with_objects:
        truths_of, masks = zip(*((item.truth, item.objects) for item in with_objects), strict=True)
        constants["objects"] = best_constant(truths_of, masks)
    mean = mean_map(truths, space)
    planes = [_dominant_plane(item) for item in items]
    return {
        "constant": lambda index, pixels: constant_map(constants[pixels], height, width),
        "mean map": lambda index, pixels: mean,
        "support plane": lambda index, pixels: planes[index],
    }


def _dominant_plane(item: ScoredFrame, rounds: int = 5) -> DepthMap:
    """The support plane by least trimmed squares: refitted to the better half of the background, so walls drop out.

    Rousseeuw, Least Median of Squares Regression, 1984; its concentration steps.
    """
    background = item.truth.valid if item.objects is None else item.truth.valid & ~item.objects
    kept = background if background.sum() >= 2 * LEAST_PIXELS else item.truth.valid
    candidates = kept
    for _ in range(rounds):
        plane = support_plane(item.truth, kept)
        error = np.abs(1 / plane.values - 1 / np.where(item.truth.valid, item.truth.values, 1))
        kept = candidates & (error <= np.median(error[candidates]))
    return support_plane(item.truth, kept)


def _sized(depth: DepthMap, like: DepthMap) -> DepthMap:
    height, width = like.values.shape
    return depth if depth.values.shape == (height, width) else depth.resized(width, height)


def _scored_frames(samples: Sequence[Sample], object_masks: Sequence[Mask] | None = None) -> list[ScoredFrame]:
    """The frames with metric depth, as z-depth."""
    items: list[ScoredFrame] = []
    for sample in samples:
        regions = sample.meta.get("object_mask", [None] * len(sample.frames))
        for frame, region in zip(sample.frames, regions, strict=True):
            depth = frame.depth
            if depth is not None and frame.view is not None:
                depth = depth.to_z(frame.view.camera)
            if depth is None or depth.kind != "metric_z" or not depth.valid.any():
                continue
            if region is not None:
                region = Region(region["height"], region["width"], tuple(region["runs"])).to_mask()
            items.append(ScoredFrame(sample.scene, frame.image, depth, region))
    if object_masks is None:
        return items
    if len(object_masks) != len(items):
        raise ValueError(
            f"depth: {len(object_masks)} object masks for {len(items)} frames with depth; give one for each"
        )
    return [ScoredFrame(v.scene, v.image, v.truth, mask) for v, mask in zip(items, object_masks, strict=True)]
