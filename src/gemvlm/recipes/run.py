"""Carry a recipe out: data, start, model, stages, previews; every step is found again by a later call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from gemvlm.batch import Batch
from gemvlm.data.collate import Collator, TurnSampler
from gemvlm.data.conversation import Segment, render
from gemvlm.data.loader import BatchStream
from gemvlm.data.quarantine import Usable
from gemvlm.data.tokenizer import SpecialIds, load_tokenizer, train_tokenizer
from gemvlm.figure import DepthRow, depth_panel
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.model.card import CheckpointCard
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.model.weights import uninitialised
from gemvlm.recipes import get
from gemvlm.recipes.data import cached_makers, check_set, development_samples, find_data, is_curated
from gemvlm.recipes.recipe import Recipe, Start
from gemvlm.recipes.start import Beginning, find_start
from gemvlm.runtime import detect, deterministic, get_log
from gemvlm.sample import Sample
from gemvlm.shards import ShardReader
from gemvlm.training.checkpoint import RunState, latest_checkpoint
from gemvlm.training.loop import Run, train
from gemvlm.training.stage import Stage

MAX_BAD_SHARE = 0.01
"""Training refuses to start when more than this share of its samples is unusable."""

PREVIEWS = 4
PREVIEW_STEPS = 10


def train_recipe(
    name: str,
    out: Path,
    data: Path | None = None,
    device: str | None = None,
    run: Run | None = None,
    start: Sequence[str] = (),
) -> bool:
    """Train recipe `name` into `out`, from the newest checkpoint there if there is one.

    The recipe's own samples are made once, into `data` (default: `out/data`); a set that `gemvlm curate` made is taken
    as it is. `start` holds the places of weights to begin with, as `Start.given` reads them.
    Returns False if `run.minutes` ended it early; the same call continues it.
    """
    recipe = get(name)
    run = run or Run(out)
    runtime = detect(device, recipe.precision)
    folder = find_data(recipe, data or out / "data")
    # a recipe's own samples fit into memory, a curated set may be of any size
    shards = ShardReader(folder, cache=not is_curated(folder))
    check_set(recipe.stages, shards)
    reader = Usable(shards, out, MAX_BAD_SHARE)
    beginning = find_beginning(recipe, run.folder, start)
    tokenizer = make_tokenizer(recipe, reader, out / "tokenizer") if beginning is None else beginning.tokenizer
    model = recipe.model if beginning is None else beginning.model
    model = _with_special_ids(model, SpecialIds.of(tokenizer), len(tokenizer))
    card = card_of(recipe, model)
    gem = begin(recipe, model, beginning, run.folder)
    stages = recipe.stages_for(len(reader))
    makers = cached_makers(
        dataclasses.replace(recipe, model=model),
        folder,
        gem.supervision.latents,
        {kind for stage in stages for kind in stage.targets},
    )

    def stream(stage: Stage, done: int) -> Iterator[Batch]:
        collator = Collator(
            tokenizer,
            recipe.coordinates,
            recipe.image,
            [makers[kind] for kind in stage.targets],
            seed=recipe.seed,
            turns=TurnSampler(stage.turns_per_sample, stage.families),
            max_tokens=recipe.max_tokens,
        )
        return BatchStream(
            reader,
            collator,
            stage.batch_size,
            seed=recipe.seed,
            rank=runtime.rank,
            world=runtime.world,
            drawn=done * stage.batch_size * runtime.world,
        )

    shown = preview_samples(recipe, shards)
    preview = depth_preview(shown, tokenizer, card, run.folder / "preview")
    return train(gem, stages, stream, tokenizer, card, run, runtime, [preview])


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
    """The model that is trained: drawn from the recipe's seed, or read. One whose run goes on is filled by the loop."""
    if latest_checkpoint(run) is not None:
        return uninitialised(model)
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


def _with_special_ids(model: GemConfig, ids: SpecialIds, tokens: int) -> GemConfig:
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


def depth_preview(
    samples: Sequence[Sample], tokenizer, card: CheckpointCard, folder: Path
) -> Callable[[Gem, Stage, RunState], Mapping[str, float] | None]:
    """A callback that paints the depth of the same few scenes as training goes on, one picture file each time."""

    def preview(gem: Gem, stage: Stage, state: RunState) -> None:
        if "depth" not in stage.loss_weights or not samples:
            return
        pipeline = GemPipeline(gem, tokenizer, card)
        predictions = pipeline.depth_batch([sample.frames[0].image for sample in samples], steps=PREVIEW_STEPS)
        rows = []
        for sample, prediction in zip(samples, predictions, strict=True):
            frame = sample.frames[0]
            assert frame.depth is not None
            rows.append(DepthRow(frame.image, prediction.depth.values, frame.depth.values, frame.depth.valid))
        folder.mkdir(parents=True, exist_ok=True)
        depth_panel(rows).save(folder / f"depth-{state.step:06d}.png")
        get_log().info("preview of step %d in %s", state.step, folder)

    return preview
