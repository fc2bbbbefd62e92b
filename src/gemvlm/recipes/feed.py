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
from gemvlm.data.packing import LEFT_OUT, Costs, PackedStream, measure
from gemvlm.recipes.recipe import Recipe
from gemvlm.runtime import Runtime, get_log
from gemvlm.sample import Sample
from gemvlm.training.parallel import Processes
from gemvlm.training.stage import Stage

MAX_LEFT_OUT = 0.01
"""Of a set's samples, at most this share may be too large for a pack."""
SHOWN = 3


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
        for stage in self.recipe.stages:
            if stage.budget is not None:
                self._refuse_too_many(stage)

    def costs(self, stage: Stage) -> Costs:
        """What `measure` found for a stage; a sample that alone is more than a pack is left out."""
        assert stage.budget is not None
        found = np.load(self._costs_file(stage), allow_pickle=False)
        found[(found > astuple(stage.budget)).any(1)] = LEFT_OUT
        return found

    def _refuse_too_many(self, stage: Stage) -> None:
        """Says which samples fit no pack. ValueError if they are more than a hundredth."""
        out = np.flatnonzero((self.costs(stage) < 0).any(1))
        if not len(out):
            return
        names = [self.reader[int(index)].id for index in out[:SHOWN]]
        told = (
            f"stage {stage.name!r}: {len(out)} of {len(self.reader)} samples fit no pack ({', '.join(names)}, ...); "
            f"one holds {stage.budget}, a sample at most {self.recipe.max_tokens} tokens"
        )
        if len(out) > MAX_LEFT_OUT * len(self.reader):
            raise ValueError(f"{told}: give them fewer frames or shorter turns, or raise these in the recipe")
        get_log().warning("%s; they are left out", told)

    def _costs_file(self, stage: Stage) -> Path:
        """Named by all that costs depend on: the set, and how the recipe and the stage show it."""
        shown = (stage.turns_per_sample, sorted((stage.families or {}).items()), stage.targets)
        recipe = self.recipe.name, str(self.recipe.coordinates), astuple(self.recipe.image), self.recipe.max_tokens
        return self.folder / f"costs-{digest(self.content, len(self.reader), *recipe, *shown)}.npy"
