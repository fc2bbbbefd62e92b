"""A recipe's samples as the batches of each stage, one by one or packed, on one process or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from gemvlm.data.collate import Collator, TargetMaker, TurnSampler
from gemvlm.data.loader import BatchStream, digest
from gemvlm.data.naming import Naming
from gemvlm.data.packing import Costs, PackedStream, measure
from gemvlm.recipes.recipe import Recipe
from gemvlm.runtime import Runtime, get_log
from gemvlm.sample import Sample
from gemvlm.training.stage import Stage


@dataclass(frozen=True)
class Feed:
    """`content` is a hash of the set; what was measured of it is kept in `folder` under that name."""

    recipe: Recipe
    reader: Sequence[Sample]
    tokenizer: PreTrainedTokenizerFast
    makers: Mapping[str, TargetMaker]
    runtime: Runtime
    folder: Path
    content: str
    workers: int = 0

    def stream(self, stage: Stage) -> BatchStream | PackedStream:
        """This process's batches of a stage, from its begin."""
        rank, world = self.runtime.rank, self.runtime.world
        options: dict[str, Any] = {"seed": self.recipe.seed, "rank": rank, "world": world, "workers": self.workers}
        if stage.budget is None:
            return BatchStream(self.reader, self.collator(stage), stage.micro_size(world), **options)
        pinned = self.runtime.device.type == "cuda"
        return PackedStream(
            self.reader, self.collator(stage), stage.budget, self.costs(stage), pinned=pinned, **options
        )

    def collator(self, stage: Stage) -> Collator:
        return Collator(
            self.tokenizer,
            self.recipe.coordinates,
            self.recipe.image,
            [self.makers[kind] for kind in stage.targets],
            seed=self.recipe.seed,
            turns=TurnSampler(stage.turns_per_sample, stage.families),
            max_tokens=self.recipe.max_tokens,
            naming=Naming(self.tokenizer, self.recipe.image) if stage.naming else None,
        )

    def stages(self) -> tuple[Stage, ...]:
        """The recipe's stages, the last as long as its epochs of this set take."""
        if self.recipe.epochs is None:
            return self.recipe.stages
        last = self.recipe.stages[-1]
        if last.budget is None:
            return self.recipe.stages_for(len(self.reader))
        packed = PackedStream(self.reader, self.collator(last), last.budget, self.costs(last), seed=self.recipe.seed)
        return self.recipe.stages_for(packed.packs_per_epoch)

    def costs(self, stage: Stage) -> Costs:
        """What each sample takes of a pack, measured once for a set and the way in which a stage shows it."""
        shown = (stage.turns_per_sample, sorted((stage.families or {}).items()), stage.targets)
        name = digest(self.content, len(self.reader), *shown, astuple(self.recipe.image), self.recipe.max_tokens)
        path = self.folder / f"costs-{name}.npy"
        if path.is_file():
            return np.load(path, allow_pickle=False)
        get_log().info("measuring %d samples, to pack them", len(self.reader))
        costs = measure(self.reader, self.collator(stage), self.workers)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.stem}.{self.runtime.rank}.draft.npy")
        np.save(draft, costs)
        draft.replace(path)
        return costs
