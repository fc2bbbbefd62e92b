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
from gemvlm.training.parallel import Processes
from gemvlm.training.stage import Stage


@dataclass(frozen=True)
class Feed:
    """`content` is a hash of the set; what is measured of it is kept in `folder`."""

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
        rank, world, pinned = self.runtime.rank, self.runtime.world, self.runtime.device.type == "cuda"
        options: dict[str, Any] = {"seed": self.recipe.seed, "rank": rank, "world": world}
        options |= {"workers": self.workers, "pinned": pinned}
        if stage.budget is None:
            return BatchStream(self.reader, self.collator(stage), stage.micro_size(world), **options)
        return PackedStream(self.reader, self.collator(stage), stage.budget, self.costs(stage), **options)

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

    def measure(self, processes: Processes) -> None:
        """Finds what each sample takes of a pack, for all stages that pack, and keeps it. Every process calls it.

        Each reads its share: one process alone would take hours for millions of samples.
        """
        for stage in self.recipe.stages:
            path = self._costs_file(stage)
            if stage.budget is None or processes.sum([float(path.is_file())])[0] == processes.world:
                continue
            get_log().info("measuring %d samples for stage %s, to pack them", len(self.reader), stage.name)
            self.folder.mkdir(parents=True, exist_ok=True)
            parts = [path.with_name(f"{path.stem}.{rank}.part.npy") for rank in range(processes.world)]
            own = measure(self.reader, self.collator(stage), self.workers, processes.rank, processes.world)
            np.save(parts[processes.rank], own)
            processes.barrier()
            if processes.is_main:
                costs = np.empty((len(self.reader), 3), np.int64)
                for rank, part in enumerate(parts):
                    costs[rank :: processes.world] = np.load(part, allow_pickle=False)
                np.save(draft := path.with_name(f"{path.stem}.draft.npy"), costs)
                draft.replace(path)
                for part in parts:
                    part.unlink()
            processes.barrier()

    def costs(self, stage: Stage) -> Costs:
        """What `measure` found for a stage."""
        return np.load(self._costs_file(stage), allow_pickle=False)

    def _costs_file(self, stage: Stage) -> Path:
        """Named by all that costs depend on: the set, and how the recipe and the stage show it."""
        shown = (stage.turns_per_sample, sorted((stage.families or {}).items()), stage.targets)
        recipe = self.recipe.name, str(self.recipe.coordinates), astuple(self.recipe.image), self.recipe.max_tokens
        return self.folder / f"costs-{digest(self.content, len(self.reader), *recipe, *shown)}.npy"
