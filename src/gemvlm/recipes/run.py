"""Carry a recipe out: data, tokenizer, model, stages, previews; every step is found again by a later call."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from gemvlm.batch import Batch
from gemvlm.curation.card import CARD
from gemvlm.curation.questions import FAMILIES
from gemvlm.data.collate import Collator, TargetMaker, TurnSampler
from gemvlm.data.conversation import Segment, render
from gemvlm.data.loader import BatchStream
from gemvlm.data.quarantine import Usable
from gemvlm.data.targets.depth import DepthTarget
from gemvlm.data.targets.rgb import RgbTarget
from gemvlm.data.tokenizer import SpecialIds, load_tokenizer, train_tokenizer
from gemvlm.figure import DepthRow, depth_panel
from gemvlm.inference.pipeline import GemPipeline
from gemvlm.model.card import CheckpointCard
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import Gem
from gemvlm.recipes import get
from gemvlm.recipes.recipe import DEVELOPMENT_SEED, Recipe, TabletopData
from gemvlm.runtime import available_cores, detect, deterministic, get_log
from gemvlm.sample import Sample
from gemvlm.shards import MANIFEST, ShardReader, write_shards
from gemvlm.training.checkpoint import RunState
from gemvlm.training.loop import Run, train
from gemvlm.training.stage import Stage

MAX_BAD_SHARE = 0.01
"""Training refuses to start when more than this share of its samples is unusable."""

PREVIEWS = 4
PREVIEW_STEPS = 10

T = TypeVar("T")


def train_recipe(
    name: str, out: Path, data: Path | None = None, device: str | None = None, run: Run | None = None
) -> bool:
    """Train recipe `name` into `out`, from the newest checkpoint there if there is one.

    The samples are made once, into `data` (default: `out/data`); a set that `gemvlm curate` made is taken as it is.
    Returns False if `run.minutes` ended it early; the same call continues it.
    """
    recipe = get(name)
    run = run or Run(out)
    folder = make_data(recipe.data, data or out / "data")
    # a recipe's own samples fit into memory, a curated set may be of any size
    shards = ShardReader(folder, cache=not is_curated(folder))
    check_families(recipe.stages, shards)
    reader = Usable(shards, out, MAX_BAD_SHARE)
    tokenizer = make_tokenizer(recipe, reader, out / "tokenizer")
    model = _with_special_ids(recipe.model, SpecialIds.of(tokenizer), len(tokenizer))
    card = CheckpointCard(
        model=model,
        coordinates=dataclasses.asdict(recipe.coordinates),
        image=dataclasses.asdict(recipe.image),
        target={"height": recipe.target[0], "width": recipe.target[1]},
        recipe=recipe.name,
        stage="",
        step=0,
        versions={},
        trained_groups=(),
    )
    with deterministic(recipe.seed):
        gem = Gem(model)
    runtime = detect(device, recipe.precision)
    makers = target_makers(recipe)

    def stream(stage: Stage, done: int) -> Iterator[Batch]:
        collator = Collator(
            tokenizer,
            recipe.coordinates,
            recipe.image,
            [makers[kind] for kind in stage.targets],
            seed=recipe.seed,
            turns=TurnSampler(stage.turns_per_sample, stage.families),
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

    preview = depth_preview(development_samples(recipe.data, PREVIEWS), tokenizer, card, run.folder / "preview")
    return train(gem, recipe.stages, stream, tokenizer, card, run, runtime, [preview])


def check_families(stages: Sequence[Stage], shards: ShardReader) -> None:
    """ValueError if a stage asks for questions that it would never get, and so would show images alone.

    A family that is known but too rare for a small set of samples is no error, as long as another one is there.
    """
    there = set(shards.manifest.families)
    for stage in stages:
        wanted = set(stage.families or ())
        missing = wanted - there if wanted.isdisjoint(there) else wanted - there - set(FAMILIES)
        if missing:
            raise ValueError(
                f"stage {stage.name!r}: no question of family {', '.join(sorted(missing))} in {shards.folder}; there "
                f"are {', '.join(sorted(there))}: correct the stage's families, or make the data again"
            )
    shown = [stage.families for stage in stages if stage.turns_per_sample != 0]
    never = there - {family for families in shown for family in (there if families is None else families)}
    if never:
        get_log().info("no stage asks for %s: these questions of %s are never shown", sorted(never), shards.folder)


def is_curated(folder: Path) -> bool:
    """Whether `gemvlm curate` made the set."""
    return (folder / CARD).is_file()


def make_data(data: TabletopData, folder: Path) -> Path:
    """The training samples of a recipe as shards in `folder`, made now unless they are there already.

    A curated set there is taken instead. ValueError if the folder holds samples made by other settings.
    """
    settings_file = folder / "settings.json"
    settings = dataclasses.asdict(data)
    if (folder / MANIFEST).is_file():
        if is_curated(folder):
            return folder
        if not settings_file.is_file():
            raise ValueError(
                f"{folder}: neither a set of `gemvlm curate` nor samples of this recipe ({CARD} and "
                f"{settings_file.name} are missing); choose another folder"
            )
        there = json.loads(settings_file.read_text(encoding="utf-8"))
        if there != json.loads(json.dumps(settings)):
            raise ValueError(
                f"{folder}: holds samples made with {there}, the recipe asks for {settings}; choose another folder"
            )
        return folder
    from gemvlm.curation.sources.tabletop import tabletop_samples

    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    samples = tabletop_samples(
        range(data.scenes),
        data.views_per_scene,
        data.size,
        processes=available_cores(),
        families=data.families,
        turns_per_family=data.turns_per_family,
    )
    write_shards(progress(samples, data.scenes * data.views_per_scene, "making scenes"), draft)
    (draft / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    draft.rename(folder)
    return folder


def development_samples(data: TabletopData, scenes: int, views_per_scene: int = 1) -> list[Sample]:
    """Samples of development scenes, for choosing and looking; never part of a result."""
    from gemvlm.curation.sources.tabletop import tabletop_samples

    seeds = range(DEVELOPMENT_SEED, DEVELOPMENT_SEED + scenes)
    return list(
        tabletop_samples(
            seeds, views_per_scene, data.size, families=data.families, turns_per_family=data.turns_per_family
        )
    )


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


def target_makers(recipe: Recipe) -> dict[str, TargetMaker]:
    height, width = recipe.target
    return {"depth": DepthTarget(recipe.model.encoding, height, width), "rgb": RgbTarget(height, width)}


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


def depth_preview(
    samples: Sequence[Sample], tokenizer, card: CheckpointCard, folder: Path
) -> Callable[[Gem, Stage, RunState], None]:
    """A callback that paints the depth of the same few scenes as training goes on, one picture file each time."""

    def preview(gem: Gem, stage: Stage, state: RunState) -> None:
        if "depth" not in stage.loss_weights:
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


def progress(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """The items, with a progress bar on the terminal."""
    from rich.progress import track

    return iter(track(items, total=total, description=description))
