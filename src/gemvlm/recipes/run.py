"""Carry a recipe out: data, start, model, stages, previews; every step is found again by a later call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from gemvlm.batch import Batch
from gemvlm.data.conversation import Segment, render
from gemvlm.data.quarantine import Usable
from gemvlm.data.tokenizer import SpecialIds, load_tokenizer, train_tokenizer
from gemvlm.model.card import CheckpointCard
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.model.weights import uninitialised
from gemvlm.recipes import get
from gemvlm.recipes.callbacks import PREVIEW_STEPS, Callback, depth_preview, test_scores
from gemvlm.recipes.data import cached_makers, check_set, development_samples, find_data, is_curated
from gemvlm.recipes.feed import Feed
from gemvlm.recipes.plan import check_memory
from gemvlm.recipes.recipe import Recipe, Start
from gemvlm.recipes.start import Beginning, find_start
from gemvlm.runtime import detect, deterministic
from gemvlm.sample import Sample
from gemvlm.shards import ShardReader
from gemvlm.training.budget import Budget, Load
from gemvlm.training.checkpoint import latest_checkpoint, restore_latents
from gemvlm.training.gpus import peak_of
from gemvlm.training.loop import Run, train
from gemvlm.training.parallel import Processes, Sharding
from gemvlm.training.stage import Stage

Callbacks = Callable[[PreTrainedTokenizerFast, CheckpointCard], Sequence[Callback]]

MAX_BAD_SHARE = 0.01
"""Training refuses to start when more than this share of its samples is unusable."""

PREVIEWS = 4
TESTED = 200
"""At most so many samples are scored as training goes on."""


def train_recipe(
    recipe: Recipe | str,
    out: Path,
    data: Path | None = None,
    device: str | None = None,
    run: Run | None = None,
    start: Sequence[str] = (),
    sharding: Sharding | None = None,
    test: Path | None = None,
    workers: int = 0,
    altered: Callable[[Sequence[Sample]], Sequence[Sample]] | None = None,
    callbacks: Callbacks | None = None,
) -> bool:
    """Train a recipe, given or named, into `out`, from the newest checkpoint there if there is one.

    The recipe's own samples are made once, into `data` (default: `out/data`); a set that `gemvlm curate` made is taken
    as it is. `start` holds the places of weights to begin with, as `Start.given` reads them. Of several processes each
    calls this; `sharding` says how the weights lie on them. `test` is a set whose scores are logged as training goes
    on, `workers` processes prepare batches ahead. `altered` makes other samples of the set's, for experiments;
    `callbacks` are made of the tokenizer and the card, and called besides our own. Returns False if `run.minutes` ended
    it early; the same call continues it.
    """
    recipe = get(recipe) if isinstance(recipe, str) else recipe
    run = run or Run(out)
    runtime = detect(device, recipe.precision)
    with Processes(runtime, sharding).joined() as processes:
        with main_first(processes):
            folder = find_data(recipe, data or out / "data")
            # a recipe's own samples fit into memory, a curated set may be of any size
            shards = ShardReader(folder, cache=not is_curated(folder))
            # who alters samples may add families of questions, which the set can't know
            asked = recipe.stages if altered is None else [dataclasses.replace(s, families=None) for s in recipe.stages]
            check_set(asked, shards)
            reader: Sequence[Sample] = Usable(shards, out, MAX_BAD_SHARE)
            reader = reader if altered is None else altered(reader)
            beginning = find_beginning(recipe, run.folder, start)
            tokenizer = make_tokenizer(recipe, reader, out / "tokenizer") if beginning is None else beginning.tokenizer
        model = recipe.model if beginning is None else beginning.model
        model = with_special_ids(model, SpecialIds.of(tokenizer), len(tokenizer))
        check_memory(recipe, model, runtime, sharding)
        gem = begin(recipe, model, beginning, run.folder)
        makers = cached_makers(
            dataclasses.replace(recipe, model=model),
            folder,
            gem.supervision.latents,
            {kind for stage in recipe.stages for kind in stage.targets},
            altered=altered is not None,
        )
        content = shards.manifest.hash
        feed = Feed(recipe, reader, tokenizer, makers, runtime, out / "costs", content, workers)
        feed.measure(processes)
        stages = feed.stages()
        facts = {"recipe": recipe.name, "seed": str(recipe.seed), "data": content}
        budget, peak = Budget(model), peak_of(runtime.device)

        def operations(stage: Stage, batch: Batch) -> float:
            return float(sum(budget.operations(stage, Load.of(batch, stage, budget.factor), recipe.precision).values()))

        run = dataclasses.replace(run, facts={**run.facts, **facts}, seed=recipe.seed, operations=operations, peak=peak)
        card = card_of(recipe, model)
        pictures = run.folder / "preview" if runtime.is_main else None
        called = [depth_preview(preview_samples(recipe, shards), tokenizer, card, pictures, PREVIEW_STEPS)]
        if test is not None:
            fitted = list(islice(reader, TESTED))
            with main_first(processes):
                tested = list(islice(Usable(ShardReader(test), out / "test", MAX_BAD_SHARE), TESTED))
            called.append(test_scores(tested, fitted, tokenizer, card))
        if callbacks is not None:
            called += callbacks(tokenizer, card)
        return train(gem, stages, feed.stream, tokenizer, card, run, runtime, called, sharding)


@contextmanager
def main_first(processes: Processes) -> Iterator[None]:
    """The first process goes through alone and writes what must be written once; the others then find it."""
    if not processes.is_main:
        processes.barrier()
    yield
    if processes.is_main:
        processes.barrier()


def card_of(recipe: Recipe, model: GemConfig) -> CheckpointCard:
    """What every checkpoint of a training says of itself, but for the stage and the step."""
    return CheckpointCard(
        model=model,
        coordinates=dataclasses.asdict(recipe.coordinates),
        image=dataclasses.asdict(recipe.image),
        target={} if recipe.target is None else {"height": recipe.target[0], "width": recipe.target[1]},
        recipe=recipe.name,
        stage="",
        step=0,
        versions={},
        trained_groups=(),
    )


def find_beginning(recipe: Recipe, run: Path, words: Sequence[str]) -> Beginning | None:
    """What the training begins with; None for random weights. A run that goes on needs no start again.

    ValueError if the run in the folder is another recipe's, or of a model of another size.
    """
    newest = latest_checkpoint(run)
    if newest is None:
        return find_start(recipe, (recipe.start or Start()).given(words)) if recipe.start or words else None
    card = CheckpointCard.read(newest)
    if card.recipe != recipe.name:
        raise ValueError(
            f"{newest}: the run is one of recipe {card.recipe}, not {recipe.name}; go on with that recipe, or train "
            f"into another folder with --start {newest}"
        )
    whole = dataclasses.replace(recipe.start or Start(), trained=()).given([str(newest)])
    return find_start(recipe, whole)


def begin(recipe: Recipe, model: GemConfig, beginning: Beginning | None, run: Path) -> Gem:
    """The model that is trained: drawn from the recipe's seed, or read.

    Of one whose run goes on only the autoencoder is read here; the loop fills the rest.
    """
    newest = latest_checkpoint(run)
    if newest is not None:
        gem = uninitialised(model)
        restore_latents(newest, gem)
        return gem
    if beginning is not None:
        return beginning.load(model, recipe.seed)
    with deterministic(recipe.seed):
        return Gem(model)


def make_tokenizer(recipe: Recipe, reader: Sequence[Sample], folder: Path):
    """The recipe's tokenizer, trained on the first samples' conversations unless `folder` has it."""
    if (folder / "tokenizer.json").is_file():
        return load_tokenizer(folder)
    texts = (
        part.text
        for index in range(min(len(reader), 2000))
        for part in render(reader[index], range(len(reader[index].turns)), recipe.coordinates)
        if isinstance(part, Segment)
    )
    integers = sorted({*recipe.coordinates.integers, *range(101)})  # coordinates, and the digits of metres
    tokenizer = train_tokenizer(texts, recipe.vocabulary, integers)
    draft = folder.with_name(folder.name + ".draft")
    tokenizer.save_pretrained(str(draft))
    draft.rename(folder)
    return tokenizer


def with_special_ids(model: GemConfig, ids: SpecialIds, tokens: int) -> GemConfig:
    """The model's config with the tokenizer's ids, so that other programs read the checkpoint alike."""
    vocabulary = model.backbone["text_config"]["vocab_size"]
    if tokens > vocabulary:
        raise ValueError(
            f"the tokenizer has {tokens} tokens but the model's vocab_size is {vocabulary}; raise it in the recipe"
        )
    special = {
        "image_token_id": ids.image_pad,
        "vision_start_token_id": ids.vision_start,
        "vision_end_token_id": ids.vision_end,
    }
    return dataclasses.replace(model, backbone={**model.backbone, **special})


def preview_samples(recipe: Recipe, shards: ShardReader) -> list[Sample]:
    """A few samples to paint as training goes on: development scenes, or the set's own first ones that have depth."""
    if recipe.data is not None:
        return development_samples(recipe.data, PREVIEWS)
    with_depth = (sample for sample in islice(shards, 50 * PREVIEWS) if sample.frames and sample.frames[0].depth)
    return list(islice(with_depth, PREVIEWS))
