"""What a checkpoint is, as its own files say it: conventions, licences, where it comes from, whether it is whole.

Nothing is guessed: what no file states is "not stated".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gemvlm.inference import GemPipeline
from gemvlm.inference.load import shipped_checkpoints
from gemvlm.model.card import CheckpointCard

NOT_STATED = "not stated"
PACKAGE_LICENCE = "Apache-2.0"
"""Of the weights inside the package."""
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
FILE_LIST = "manifest.json"
MOST_BYTES = 1 << 20
"""Of a licence or a list of files that is read."""
ACTION_FILES = ("actions.json", "action_statistics.json", "norm_stats.json")


@dataclass(frozen=True)
class CheckedFile:
    """A file of the checkpoint; `listed` says whether its list of files agrees, None if it has none or not this one."""

    name: str
    bytes: int
    sha256: str
    listed: bool | None


@dataclass(frozen=True)
class CheckpointFacts:
    """Everything a card says that needs no run; `problems` are what a user must know first."""

    name: str
    recipe: str
    stage: str
    step: int
    trained_groups: tuple[str, ...]
    parameters: Mapping[str, int]
    versions: Mapping[str, str]
    coordinates: str
    images: str
    depth_kind: str
    depth_encoding: str
    painted: str
    actions: str
    licences: Mapping[str, str]
    files: tuple[CheckedFile, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """(name, words) in the order of a card."""
        parts = ", ".join(f"{group} {count / 1e6:.2f} M" for group, count in self.parameters.items() if count)
        return [
            ("recipe", f"{self.recipe}, after stage {self.stage}, step {self.step}"),
            ("trained", ", ".join(self.trained_groups) or "nothing"),
            ("parameters", f"{sum(self.parameters.values()) / 1e6:.2f} M: {parts}"),
            ("coordinates", self.coordinates),
            ("images", self.images),
            ("depth", self.depth_kind),
            ("depth encoding", f"{self.depth_encoding}; painted at {self.painted}"),
            ("actions", self.actions),
            *((f"licence of {what}", words) for what, words in self.licences.items()),
            ("made with", ", ".join(f"{name} {version}" for name, version in sorted(self.versions.items()) if version)),
        ]


def checkpoint_facts(folder: Path, pipeline: GemPipeline, data_licences: Mapping[str, str]) -> CheckpointFacts:
    """Reads the card, the files and their hashes. `data_licences` are those that the recipe or its set states."""
    card = pipeline.card
    files = _files(folder)
    problems = [
        f"{file.name} differs from {FILE_LIST}: it was changed or damaged" for file in files if file.listed is False
    ]
    problems += _missing(folder, files)
    weights = _weights_licence(folder)
    if weights == NOT_STATED:
        problems.append("the licence of the weights is not stated: add a LICENSE file beside them")
    if not card.trained_groups:
        problems.append("no part of it was trained")
    if not card.versions.get("commit"):
        problems.append("the commit that it was trained with is not known")
    elif card.versions["commit"].endswith("+"):
        problems.append("it was trained with code that had changes beyond its commit")
    groups = pipeline.gem.parameter_groups()
    return CheckpointFacts(
        name=folder.name,
        recipe=card.recipe,
        stage=card.stage,
        step=card.step,
        trained_groups=card.trained_groups,
        parameters={name: sum(p.numel() for p in own.values()) for name, own in groups.items()},
        versions=dict(card.versions),
        coordinates=coordinate_words(card),
        images=_image_words(card),
        depth_kind=depth_words(card),
        depth_encoding=_encoding_words(card),
        painted=f"{card.target['height']} x {card.target['width']} pixels" if card.target else "each image's own size",
        actions=_action_words(folder),
        licences={"weights": weights, **(data_licences or {"data": NOT_STATED})},
        files=files,
        problems=tuple(problems),
    )


def coordinate_words(card: CheckpointCard) -> str:
    """How places are written, for someone who must parse them."""
    scale, step = card.coordinates["scale"], card.coordinates.get("step", 1)
    multiples = "" if step == 1 else f", multiples of {step}"
    return f"(x, y) and (x0, y0, x1, y1), whole numbers from 0 to {scale} of the image's width and height{multiples}"


def depth_words(card: CheckpointCard) -> str:
    """What the values of painted depth mean."""
    encoding = card.model.encoding
    if encoding.is_fixed:
        return f"metric z-depth in metres, from {encoding.near_m} to {encoding.far_m} m (what lies beyond is clipped)"
    return f"up to an unknown scale and shift, linear in {encoding.space.replace('_', ' ')}; not metric"


def _encoding_words(card: CheckpointCard) -> str:
    encoding = card.model.encoding
    kind = "a fixed range" if encoding.is_fixed else "each image's own range (2nd to 98th percentile)"
    return f"{encoding.name}, {kind}"


def _image_words(card: CheckpointCard) -> str:
    image = card.image
    side = image["patch_size"] * image["merge_size"]
    return f"{image['min_pixels']} to {image['max_pixels']} pixels, {side} x {side} of them to a token"


def _action_words(folder: Path) -> str:
    found = [name for name in ACTION_FILES if (folder / name).is_file()]
    if found:
        return f"a contract is stated in {', '.join(found)}"
    return "none: it answers and paints, and drives no robot"


def _weights_licence(folder: Path) -> str:
    for name in LICENCE_FILES:
        path = folder / name
        if path.is_file() and path.stat().st_size <= MOST_BYTES:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            first = next((line.strip() for line in lines if line.strip()), "")
            return f"{first[:120]} ({name})" if first else NOT_STATED
    shipped = {path.resolve() for path in shipped_checkpoints().values()}
    return f"{PACKAGE_LICENCE}, as the package that it is part of" if folder.resolve() in shipped else NOT_STATED


def _files(folder: Path) -> tuple[CheckedFile, ...]:
    listed = _listed(folder)
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name != FILE_LIST):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        wanted = listed.get(path.name)
        found.append(CheckedFile(path.name, path.stat().st_size, digest, None if wanted is None else wanted == digest))
    return tuple(found)


def _missing(folder: Path, files: Sequence[CheckedFile]) -> list[str]:
    there = {file.name for file in files}
    return [f"{name} is in {FILE_LIST} but not there" for name in sorted(_listed(folder).keys() - there)]


def _listed(folder: Path) -> dict[str, str]:
    """Name → hash of the checkpoint's own list of files, nothing if it has none. ValueError if it can't be read."""
    path = folder / FILE_LIST
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(entry["sha256"]) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not a list of files with their hashes ({error}); copy the checkpoint again"
        ) from None
