"""Carry a policy's recipe out: episodes, start, model, stages, errors on held-out episodes; in the one loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from gemvlm.batch import Batch
from gemvlm.data.actions import ActionCollator, EpisodeDataset, ReadableMoments, episode_statistics
from gemvlm.data.collate import Collator, TurnSampler
from gemvlm.data.episodes import Episode
from gemvlm.data.loader import BatchStream
from gemvlm.data.mixture import Mixture
from gemvlm.data.naming import Naming
from gemvlm.data.quarantine import Usable
from gemvlm.data.tokenizer import SpecialIds, load_tokenizer, train_tokenizer
from gemvlm.model.gem_vla import GemVla, GemVlaConfig
from gemvlm.model.policy_card import PolicyCard
from gemvlm.model.weights import undrawn
from gemvlm.recipes.data import check_set, target_makers
from gemvlm.recipes.run import MAX_BAD_SHARE, main_first, with_special_ids
from gemvlm.recipes.vla import WORDS, VlaRecipe
from gemvlm.recipes.vla_costs import PolicyCosts
from gemvlm.recipes.vla_episodes import Robot, find_episodes
from gemvlm.recipes.vla_errors import held_out_errors
from gemvlm.recipes.vla_start import PolicyBeginning, find_policy_start
from gemvlm.robot.codec import ActionCodec
from gemvlm.robot.statistics import Normalisation, Statistics, published_action_statistics
from gemvlm.runtime import Runtime, detect, deterministic
from gemvlm.sample import Sample
from gemvlm.shards import ShardReader
from gemvlm.training.checkpoint import latest_checkpoint, restore_latents
from gemvlm.training.gpus import peak_of
from gemvlm.training.loop import Run, train
from gemvlm.training.parallel import Processes, Sharding
from gemvlm.training.stage import Stage


@dataclass(frozen=True)
class PolicyData:
    """What a policy learns from and is measured on, and the robot whose numbers these are."""

    robot: Robot
    learned: EpisodeDataset
    held_out: EpisodeDataset | None
    normalisation: Normalisation
    words: Sequence[Sample] | None
    facts: Mapping[str, str]

    @property
    def codec(self) -> ActionCodec:
        return ActionCodec(self.robot.embodiment, self.normalisation)

    @property
    def raw_state(self) -> bool:
        """Whether the model sees the state in the robot's own units: statistics of no rows leave it as it is."""
        return not self.normalisation.fields["state"].count

    def with_raw_state(self) -> PolicyData:
        """The same, for an expert that sees the state as it is."""
        own = self.normalisation.fields["state"]
        fields = {**self.normalisation.fields, "state": Statistics.identity(len(own), own.names)}
        return dataclasses.replace(self, normalisation=Normalisation(self.normalisation.method, fields))

    @property
    def pictures(self) -> dict[str, list[int]]:
        """[height, width] of each camera's pictures, as the policy knows them."""
        frames = self.learned[0].frames
        return {camera: list(frame.image.shape[:2]) for camera, frame in frames.items()}


def train_policy(
    recipe: VlaRecipe,
    out: Path,
    episodes: Sequence[Path],
    *,
    robot: Robot | None = None,
    text: Path | None = None,
    action_statistics: Path | None = None,
    device: str | None = None,
    run: Run | None = None,
    start: Sequence[str] = (),
    sharding: Sharding | None = None,
    workers: int = 0,
) -> bool:
    """Train a policy into `out`, from the newest checkpoint there if there is one.

    `episodes` are folders (`open_episodes`) of one robot: `robot`, by default the recipe's. `text` is a set of
    `gemvlm curate`, for recipes that go on answering. `action_statistics` is a file by which a published expert's
    actions are normalised, in place of the episodes' own; such an expert sees the state as it is, without noise
    (zhaorw02/GEM, commit 5500948, `GEM-VLA/train/dataset.py`). A run that goes on keeps its checkpoint's normalisation.
    The rest as in `train_recipe`. Returns False if `run.minutes` ended it early.
    """
    run = run or Run(out)
    runtime = detect(device, recipe.precision)
    with Processes(runtime, sharding).joined() as processes:
        with main_first(processes):
            data = find_data(recipe, out, episodes, robot or Robot.named(recipe.embodiment), text, action_statistics)
            newest = latest_checkpoint(run.folder)
            beginning = find_policy_start(recipe, start) if newest is None else _going_on(newest, recipe)
            if newest is not None:
                data = dataclasses.replace(data, normalisation=PolicyCard.read(newest).normalisation)
            elif beginning is not None and beginning.raw_state:
                data = data.with_raw_state()
            tokenizer = make_tokenizer(recipe, data, out / "tokenizer") if beginning is None else beginning.tokenizer
        card = policy_card(recipe, data, tokenizer, None if beginning is None else beginning.backbone)
        feed = PolicyFeed(recipe, data, ReadableMoments(data.learned, out, MAX_BAD_SHARE), tokenizer, runtime, workers)
        costs = PolicyCosts(recipe, card.model)
        costs.check_memory(feed.examples, runtime, sharding)
        policy = begin(recipe, card.model, beginning, newest)
        facts = {"recipe": recipe.name, "seed": str(recipe.seed), **data.facts}
        operations, peak = costs.operations(), peak_of(runtime.device)
        run = dataclasses.replace(run, facts={**run.facts, **facts}, seed=recipe.seed, operations=operations, peak=peak)
        held_out = None if data.held_out is None else ReadableMoments(data.held_out, out, MAX_BAD_SHARE)
        callbacks = [] if held_out is None else [held_out_errors(held_out, tokenizer, card)]
        return train(policy, recipe.stages, feed.stream, tokenizer, card, run, runtime, callbacks, sharding)


def find_data(
    recipe: VlaRecipe,
    out: Path,
    episodes: Sequence[Path],
    robot: Robot,
    text: Path | None,
    action_statistics: Path | None = None,
) -> PolicyData:
    """ValueError for episodes that are another robot's, for too many bad ones, for questions too much or missing."""
    if (text is None) == (recipe.text_share > 0):
        raise ValueError(
            f"recipe {recipe.name} learns from questions too: add --text SET, which `gemvlm curate` wrote"
            if text is None
            else f"recipe {recipe.name} does not learn from questions: leave --text out, or take vla_nano_text"
        )
    found = find_episodes(episodes, robot, recipe.held_out, recipe.seed, out)
    learned = _dataset(recipe, robot, found.learned)
    held_out = _dataset(recipe, robot, found.held_out) if found.held_out else None
    if recipe.paints and not any(info.has_depth for one in found.learned for info in one.cameras.values()):
        raise ValueError(
            f"recipe {recipe.name} learns to paint depth, but no camera of the {len(found.learned)} episodes has any: "
            "record it, add a depth teacher's, or take a recipe of actions alone"
        )
    statistics = episode_statistics(learned, robot.embodiment)
    if action_statistics is not None:
        statistics["action"] = _given_statistics(action_statistics, statistics["action"])
    normalisation = Normalisation(recipe.normalisation, statistics)
    facts = {"episodes": learned.hash, "held out": "" if held_out is None else held_out.hash}
    words = None
    if text is not None:
        shards = ShardReader(text)
        check_set([stage for stage in recipe.stages if WORDS in stage.loss_weights], shards)
        words, facts = Usable(shards, out, MAX_BAD_SHARE), facts | {"text": shards.manifest.hash}
    return PolicyData(robot, learned, held_out, normalisation, words, facts)


def _given_statistics(path: Path, own: Statistics) -> Statistics:
    """ValueError unless the file has as many numbers as the robot's actions."""
    given = published_action_statistics(path.read_text(encoding="utf-8"))
    if given.mean.shape != own.mean.shape:
        raise ValueError(
            f"{path}: statistics of {len(given.mean)} numbers, but the model's actions have {len(own.mean)}; give "
            "those of this robot, or leave them out"
        )
    return given


def _dataset(recipe: VlaRecipe, robot: Robot, episodes: Sequence[Episode]) -> EpisodeDataset:
    return EpisodeDataset(
        [list(episodes)],
        robot.contract,
        recipe.expert.horizon,
        told=recipe.told,
        every=recipe.every,
        camera_names=robot.camera_names,
    )


def make_tokenizer(recipe: VlaRecipe, data: PolicyData, folder: Path) -> PreTrainedTokenizerFast:
    """Trained on what robots are told, for random weights, unless `folder` has it."""
    if not (folder / "tokenizer.json").is_file():
        told = sorted({words for one in data.learned.episodes for words in _said(one)})
        draft = folder.with_name(folder.name + ".draft")
        integers = sorted({*recipe.coordinates.integers, *range(101)})
        train_tokenizer(told, recipe.vocabulary, integers).save_pretrained(str(draft))
        draft.rename(folder)
    return load_tokenizer(folder)


def told_to_robots(card: PolicyCard) -> dict[str, Any]:
    """What a server says of a policy beside its contract, in plain values.

    `units` are those that the episodes' files state, by name of state or action. Robots send and get numbers in these;
    `normalisation` (method and statistics of what was learned from) is the server's work.
    """
    return {
        "policy": {"recipe": card.recipe, "stage": card.stage, "step": card.step},
        "executed": card.executed,
        "flow_steps": card.flow_steps,
        "units": dict(card.data.get("units", {})),
        "normalisation": card.normalisation.to_dict(),
    }


def _said(episode: Episode) -> tuple[str, ...]:
    """Everything that a robot may be told in an episode."""
    return (episode.instruction, *episode.wordings, *(part.text for part in episode.subtasks))


def policy_card(
    recipe: VlaRecipe, data: PolicyData, tokenizer: PreTrainedTokenizerFast, backbone: dict[str, Any] | None
) -> PolicyCard:
    """What every checkpoint of the training says of itself, but for the stage and the step."""
    gem = recipe.model if backbone is None else dataclasses.replace(recipe.model, backbone=backbone)
    gem = with_special_ids(gem, SpecialIds.of(tokenizer), len(tokenizer))
    embodiment = data.robot.embodiment
    return PolicyCard(
        model=recipe.policy(embodiment.state_size, embodiment.action_size, dict(gem.backbone)),
        coordinates=dataclasses.asdict(recipe.coordinates),
        image=dataclasses.asdict(recipe.image),
        target={} if recipe.target is None else {"height": recipe.target[0], "width": recipe.target[1]},
        recipe=recipe.name,
        stage="",
        step=0,
        versions={},
        trained_groups=(),
        contract=data.robot.contract,
        embodiment=data.robot.name,
        normalisation=data.normalisation,
        system=recipe.system,
        flow_steps=recipe.flow_steps,
        executed=recipe.executed,
        guidance=recipe.guidance,
        data={
            **data.facts,
            "learned": len(data.learned.episodes),
            "units": dict(data.learned.episodes[0].units),
            "measured": 0 if data.held_out is None else len(data.held_out.episodes),
            "pictures": data.pictures,
        },
    )


def begin(recipe: VlaRecipe, model: GemVlaConfig, beginning: PolicyBeginning | None, newest: Path | None) -> GemVla:
    """The policy that is trained: drawn from the recipe's seed, or read; of one that goes on only the autoencoder."""
    if newest is not None:
        policy = undrawn(lambda: GemVla(model))
        restore_latents(newest, policy)
        return policy
    if beginning is not None:
        return beginning.load(model, recipe.seed)
    with deterministic(recipe.seed):
        return GemVla(model)


def _going_on(newest: Path, recipe: VlaRecipe) -> PolicyBeginning:
    """A run that goes on needs no start again. ValueError if it is another recipe's."""
    card = PolicyCard.read(newest)
    if card.recipe != recipe.name:
        raise ValueError(
            f"{newest}: the run is one of recipe {card.recipe}, not {recipe.name}; go on with that recipe, or train "
            f"into another folder with --start {newest}"
        )
    return PolicyBeginning(dict(card.model.backbone), load_tokenizer(newest), {})


@dataclass(frozen=True)
class PolicyFeed:
    """Moments of episodes, and questions among them, as the batches of each stage."""

    recipe: VlaRecipe
    data: PolicyData
    moments: Sequence[Any]
    tokenizer: PreTrainedTokenizerFast
    runtime: Runtime
    workers: int = 0

    def stream(self, stage: Stage) -> BatchStream:
        """This process's batches of a stage, from its begin. ValueError if the stage packs, which moments can't."""
        if stage.budget is not None:
            raise ValueError(f"stage {stage.name!r}: a policy's batches are counted, not packed; leave budget out")
        rank, world, pinned = self.runtime.rank, self.runtime.world, self.runtime.device.type == "cuda"
        options: dict[str, Any] = {"seed": self.recipe.seed, "rank": rank, "world": world}
        options |= {"workers": self.workers, "pinned": pinned}
        reader = self.moments
        if WORDS in stage.loss_weights and self.data.words is not None:
            share = self.recipe.text_share
            sets = {"robot": self.moments, "words": self.data.words}
            reader = Mixture(sets, {"robot": 1 - share, "words": share}, self.recipe.seed)
            options["plan"] = reader
        return BatchStream(reader, self.collator(stage), stage.micro_size(world), **options)

    def examples(self, stage: Stage) -> list[Batch]:
        """A batch of one moment, and one of a question where the stage reads them."""
        words = self.data.words if WORDS in stage.loss_weights else None
        samples = [self.moments[0]] if words is None else [self.moments[0], words[0]]
        collator = self.collator(stage)
        return [collator([sample]) for sample in samples]

    def collator(self, stage: Stage) -> ActionCollator:
        recipe = self.recipe
        makers = target_makers(recipe)
        collator = Collator(
            self.tokenizer,
            recipe.coordinates,
            recipe.image,
            [makers[kind] for kind in stage.targets],
            seed=recipe.seed,
            turns=TurnSampler(stage.turns_per_sample, stage.families),
            max_tokens=recipe.max_tokens,
            system=recipe.system,
            naming=Naming(self.tokenizer, recipe.image) if stage.naming else None,
        )
        return ActionCollator(
            collator,
            self.data.codec,
            seed=recipe.seed,
            state_noise=0.0 if self.data.raw_state else recipe.state_noise,
            augmentation=recipe.augmentation,
            hidden_images=recipe.hidden_images,
            hidden_words=recipe.hidden_words,
        )
