"""What a checkpoint says of itself: `gem.json` beside the weights, enough to load, use and trace them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gemvlm.model.config import GemConfig

CARD_FILE = "gem.json"
CARD_FORMAT = 1


@dataclass(frozen=True)
class CheckpointCard:
    """The model, the conventions of its inputs, and where its weights come from.

    `coordinates` holds `data.conversation.CoordinateFormat`'s fields, `image` those of `data.frames.ImageConfig`,
    `target` the height and width in pixels of the pictures that the generator paints, nothing where they follow the
    published rule for each image. `trained_groups` names the module groups trained so far.
    """

    model: GemConfig
    coordinates: Mapping[str, int]
    image: Mapping[str, Any]
    target: Mapping[str, int]
    recipe: str
    stage: str
    step: int
    versions: Mapping[str, str]
    trained_groups: tuple[str, ...]
    scores: Mapping[str, Any] = field(default_factory=dict)

    FILE: ClassVar[str] = CARD_FILE

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undone by `from_dict`."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"model": self.model.to_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> CheckpointCard:
        trained = tuple(fields["trained_groups"])
        return cls(**{**fields, "model": GemConfig.from_dict(fields["model"]), "trained_groups": trained})

    def write(self, folder: Path) -> None:
        fields = self.to_dict() | {"format": CARD_FORMAT}
        (folder / self.FILE).write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> CheckpointCard:
        """ValueError for what is no card of this kind, or is damaged."""
        path = folder / cls.FILE
        if not path.is_file():
            there = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else "no such folder"
            raise ValueError(
                f"{path}: not found ({there}); give a checkpoint folder written by gemvlm, or the name of a shipped one"
            )
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON ({error}); the checkpoint is damaged, copy it again") from None
        if fields.pop("format", None) != CARD_FORMAT:
            raise ValueError(f"{path}: format is not {CARD_FORMAT}; it was written by another version of gemvlm")
        wanted = {f.name for f in dataclasses.fields(cls)}
        if set(fields) != wanted:
            raise ValueError(
                f"{path}: missing {sorted(wanted - set(fields))}, unexpected {sorted(set(fields) - wanted)}; it was "
                "written by another version of gemvlm, or edited: copy the checkpoint again"
            )
        return cls.from_dict(fields)
