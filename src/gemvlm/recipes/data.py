"""The samples that a recipe learns from: its own scenes, made once, or a set of `gemvlm curate`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from gemvlm.curation.card import CARD
from gemvlm.curation.encode import Codec, Kind, cached, latents_folder
from gemvlm.curation.questions import FAMILIES
from gemvlm.data.collate import Cached, Picture, TargetMaker
from gemvlm.data.targets.depth import DepthTarget
from gemvlm.data.targets.rgb import RgbTarget
from gemvlm.model.latents import Latents
from gemvlm.model.weights import published_autoencoder
from gemvlm.recipes.recipe import DEVELOPMENT_SEED, Recipe, TabletopData
from gemvlm.recipes.start import located
from gemvlm.runtime import available_cores, get_log
from gemvlm.sample import Frame, Sample
from gemvlm.shards import MANIFEST, Manifest, ShardReader, StoredFrame, write_shards
from gemvlm.training.stage import Stage

SETTINGS = "settings.json"
T = TypeVar("T")


def check_place(recipe: Recipe, out: Path, data: Path | None) -> None:
    """ValueError unless `data`, as a user gives it, holds a set, or may become the recipe's own scenes.

    A folder that is missing is made only inside `out`: elsewhere it is more likely a name that was misspelt.
    """
    if data is None:
        if recipe.data is None:
            raise ValueError(
                f"recipe {recipe.name} learns from a set that you give: add --data SET, a folder that `gemvlm curate` "
                "wrote (gemvlm curate gem_4m --plan-only shows what the paper's kind of set is made of)"
            )
    elif not (data / MANIFEST).is_file():
        what = "holds no set" if data.is_dir() else "no such folder"
        if data.is_dir() or recipe.data is None or not data.resolve().is_relative_to(out.resolve()):
            raise ValueError(
                f"--data {data}: {what} ({MANIFEST} is missing); give a folder that `gemvlm curate` wrote"
                + (", or leave --data out: the recipe's own scenes are then made" if recipe.data else "")
            )


def find_data(recipe: Recipe, folder: Path) -> Path:
    """The recipe's samples in `folder`: a curated set that lies there, or its own scenes, made unless they are there.

    ValueError if the folder holds something else.
    """
    if recipe.data is None:
        Manifest.from_folder(folder)
        return folder
    return make_data(recipe.data, folder)


def make_data(data: TabletopData, folder: Path) -> Path:
    """The training samples of a recipe as shards in `folder`, made now unless they are there already.

    A curated set there is taken instead. ValueError if the folder holds samples made by other settings.
    """
    settings_file = folder / SETTINGS
    settings = dataclasses.asdict(data)
    if (folder / MANIFEST).is_file():
        if is_curated(folder):
            return folder
        if not settings_file.is_file():
            raise ValueError(
                f"{folder}: neither a set of `gemvlm curate` nor samples of this recipe ({CARD} and "
                f"{SETTINGS} are missing); choose another folder"
            )
        there = json.loads(settings_file.read_text(encoding="utf-8"))
        if there != json.loads(json.dumps(settings)):
            raise ValueError(
                f"{folder}: holds samples made with {there}, the recipe asks for {settings}; choose another folder"
            )
        return folder
    from gemvlm.curation.sources.tabletop import tabletop_samples
    from gemvlm.worlds.tabletop import SceneConfig

    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    samples = tabletop_samples(
        range(data.scenes),
        data.views_per_scene,
        data.size,
        SceneConfig(**data.scene),
        available_cores(),
        families=data.families,
        turns_per_family=data.turns_per_family,
    )
    write_shards(progress(samples, data.scenes * data.views_per_scene, "making scenes"), draft)
    (draft / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    draft.rename(folder)
    return folder


def is_curated(folder: Path) -> bool:
    """Whether `gemvlm curate` made the set."""
    return (folder / CARD).is_file()


def development_samples(data: TabletopData, scenes: int, views_per_scene: int = 1) -> list[Sample]:
    """Samples of development scenes, for choosing and looking; never part of a result."""
    from gemvlm.curation.sources.tabletop import tabletop_samples
    from gemvlm.worlds.tabletop import SceneConfig

    config = SceneConfig(**data.scene)
    seeds = range(DEVELOPMENT_SEED, DEVELOPMENT_SEED + scenes)
    return list(
        tabletop_samples(
            seeds, views_per_scene, data.size, config, families=data.families, turns_per_family=data.turns_per_family
        )
    )


def check_set(stages: Sequence[Stage], shards: ShardReader) -> None:
    """ValueError if the set has nothing that a stage could learn from: no sample, no depth, no question of a family."""
    if not len(shards):
        raise ValueError(f"{shards.folder}: the set is empty; curate it again, and look at its funnel")
    for stage in stages:
        if "depth" in stage.targets and not shards.manifest.depths and set(stage.loss_weights) <= {"depth"}:
            raise ValueError(
                f"stage {stage.name!r} learns from depth alone, but none of the {len(shards)} samples in "
                f"{shards.folder} has depth; curate with --depth-teacher, or leave the stage out"
            )
    check_families(stages, shards)


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
    if never and shown:
        get_log().info("no stage asks for %s: these questions of %s are never shown", sorted(never), shards.folder)


def target_makers(recipe: Recipe) -> dict[str, TargetMaker]:
    """What makes each kind of target at the recipe's size."""
    size = recipe.target or (None, None)
    return {"depth": DepthTarget(recipe.model.encoding, *size), "rgb": RgbTarget(*size)}


def published_codec(recipe: Recipe, place: str, kind: Kind) -> Codec:
    """What makes the latents of a recipe that begins with the autoencoder at `place`.

    DC-AE's own folder or hub id, or that of the Sana whose `vae/` it is.
    """
    latents = published_autoencoder(located(place))
    return Codec.of(recipe.model, latents, kind, recipe.target or (None, None))


def cached_makers(
    recipe: Recipe, folder: Path, latents: Latents, kinds: Iterable[str], altered: bool = False
) -> dict[str, TargetMaker]:
    """`target_makers`, but for kinds whose latents `gemvlm encode` has put beside the set: those are read.

    With `altered`, frames that were changed since they were read are encoded anew. StampError if the latents were made
    by another autoencoder, encoding or size than this training's.
    """
    makers = target_makers(recipe)
    for kind in sorted(set(kinds)):
        if (Path(str(latents_folder(folder, kind))) / "stamp.json").is_file():
            codec = Codec.of(recipe.model, latents, kind, recipe.target or (None, None))  # type: ignore[arg-type]
            found = cached(folder, codec)
            makers[kind] = ForAltered(found, makers[kind]) if altered else found
            get_log().info("latents of %s are read from %s", kind, latents_folder(folder, kind))
    return makers


@dataclasses.dataclass(frozen=True)
class ForAltered:
    """Cached latents of the frames that are as they were stored, targets made anew of those that were changed."""

    stored: TargetMaker
    anew: TargetMaker

    @property
    def kind(self) -> str:
        return self.anew.kind

    def make(self, frame: Frame) -> Picture | Cached | None:
        is_stored = isinstance(frame, StoredFrame) and bool(frame.media)
        return (self.stored if is_stored else self.anew).make(frame)


def progress(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """The items, with a progress bar on the terminal."""
    from rich.progress import track

    return iter(track(items, total=total, description=description))
