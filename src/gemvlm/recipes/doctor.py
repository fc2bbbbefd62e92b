"""What machine this is, which extras are installed, whether the shipped models load and answer.

gemvlm doctor
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import torch
from packaging.requirements import Requirement

from gemvlm.inference import load
from gemvlm.inference.examples import examples
from gemvlm.inference.load import checkpoint_folder, shipped_checkpoints
from gemvlm.model.card import CheckpointCard
from gemvlm.runtime import available_cores, default_device, memory_bytes

EXTRAS_OF_USERS = ("worlds", "curate", "lora", "robots", "serve", "web", "rerun", "onnx")
STEPS = 4
"""Of the painting in the self-test: whether it runs, not how well."""
GIB = 2**30


@dataclass(frozen=True)
class Line:
    """One finding. `well` is None for what is only missing if you need it; `remedy` says what to type."""

    name: str
    found: str
    well: bool | None = True
    remedy: str = ""


def examine(model: str = "nano", device: str | None = None) -> Iterator[Line]:
    """The findings, each as soon as it is made."""
    total, free = memory_bytes()
    memory = f"{total / GIB:.1f} GiB of memory ({free / GIB:.1f} free)" if total else "memory unknown"
    yield Line("machine", f"{platform.system()} {platform.machine()}, {available_cores()} cores, {memory}")
    yield Line("python", platform.python_version())
    yield _torch(device)
    yield _package()
    yield from _extras()
    for name in shipped_checkpoints():
        yield _checkpoint(name)
    yield _self_test(model, device)


def _torch(device: str | None) -> Line:
    chosen = default_device(device)
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    seen = [f"{card.name} with {card.total_memory / GIB:.0f} GiB" for card in cards]
    seen += ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []
    return Line("torch", f"{torch.__version__}, uses {chosen}; GPU: {', '.join(seen) or 'none'}")


def _package() -> Line:
    try:
        return Line("gemvlm", metadata.version("gemvlm"))
    except metadata.PackageNotFoundError:
        return Line("gemvlm", "used from its source tree, not installed", None, "pip install -e .")


def _extras() -> Iterator[Line]:
    """One line for each extra that the package declares for its users."""
    try:
        declared = [Requirement(line) for line in metadata.requires("gemvlm") or ()]
    except metadata.PackageNotFoundError:
        yield Line("extras", "unknown without an installed package", None, "pip install -e .")
        return
    for extra in EXTRAS_OF_USERS:
        needed = [one for one in declared if one.marker is not None and one.marker.evaluate({"extra": extra})]
        needed = [one for one in needed if re.search(r"\bextra\b", str(one.marker))]
        lacking = [why for one in needed if (why := _lacking(one))]
        there = ", ".join(f"{one.name} {metadata.version(one.name)}" for one in needed if not _lacking(one))
        if lacking:
            remedy = f"pip install 'gemvlm[{extra}]'"
            yield Line(f"[{extra}]", f"{', '.join(lacking)}{f'; there: {there}' if there else ''}", None, remedy)
        else:
            yield Line(f"[{extra}]", there)


def _lacking(needed: Requirement) -> str:
    """ "" if it is installed in a version that fits."""
    try:
        version = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return f"no {needed.name}"
    fits = needed.specifier.contains(version, prereleases=True)
    return "" if fits else f"{needed.name} {version} instead of {needed.specifier}"


def _checkpoint(name: str) -> Line:
    try:
        card = CheckpointCard.read(checkpoint_folder(name))
    except ValueError as error:
        return Line(name, str(error), False, "install the package again: pip install --force-reinstall gemvlm")
    return Line(name, f"shipped checkpoint, recipe {card.recipe}, step {card.step}")


def _self_test(model: str, device: str | None) -> Line:
    """Loads the model, points and paints on one picture. Whatever goes wrong is the finding."""
    example = examples()[0]
    try:
        start = time.perf_counter()
        pipeline = load(model, device)
        loaded = time.perf_counter()
        said = pipeline.describe(example.path, max_new_tokens=32).text
        painted = pipeline.depth(example.path, steps=STEPS).depth
        done = time.perf_counter()
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        remedy = "try --device cpu" if device != "cpu" else "install the package again, or give another checkpoint"
        return Line("self-test", f"{model}: {error}", False, remedy)
    seen = painted.values[painted.valid]
    if not said or not np.isfinite(seen).all() or not seen.size:
        return Line("self-test", f"{model} on {pipeline.device}: no words or no depth", False, "try --device cpu")
    quoted = said if len(said) <= 60 else said[:57] + "..."
    took = f"loaded in {loaded - start:.1f} s, answered and painted in {done - loaded:.1f} s"
    return Line("self-test", f'{model} on {pipeline.device}: {took}: "{quoted}"')
