"""`gemvlm vla distill`: a policy → one that answers in a single step, on the episodes that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gemvlm.data.actions import EpisodeDataset, ReadableMoments
from gemvlm.data.loader import BatchStream
from gemvlm.inference.policy import load_policy
from gemvlm.recipes import get_policy
from gemvlm.recipes.run import MAX_BAD_SHARE
from gemvlm.recipes.vla_episodes import Robot, find_episodes
from gemvlm.runtime import detect, get_log, versions
from gemvlm.training.checkpoint import save_checkpoint
from gemvlm.training.distillation import DistillationConfig, distil
from gemvlm.training.metrics import MetricsLog

LOG_EVERY = 20


def distil_policy(
    path: Path,
    episodes: Sequence[Path],
    out: Path,
    config: DistillationConfig,
    *,
    camera_names: Mapping[str, str] | None = None,
    batch_size: int = 32,
    device: str | None = None,
) -> Path:
    """Writes a whole policy of one flow step to `out/final`, its losses to `out/metrics.jsonl`; returns the folder.

    The teacher's path is the one that it acts by (`flow_steps`). Held-out episodes stay held out. The backbone stays as
    it is, so the teacher's conditions can't drift (B19). The card says which method made it. ValueError for episodes of
    another robot, a folder that holds a policy, or a teacher that is guided or answers in one step already.
    """
    final = out / "final"
    if final.exists():
        raise ValueError(f"{final}: holds a policy already; choose another folder")
    policy = load_policy(path, device)
    card, recipe = policy.card, get_policy(policy.card.recipe)
    if card.flow_steps == 1:
        raise ValueError(f"{path}: answers in one step already; distil the policy that it was made of")
    if card.guidance != 1:
        raise ValueError(f"{path}: is guided ({card.guidance:g}), and a student of it would not be; distil one without")
    config = replace(config, teacher_steps=card.flow_steps)
    robot = Robot(card.embodiment, card.contract, dict(camera_names or {}))
    learned = find_episodes(episodes, robot, recipe.held_out, recipe.seed, out).learned
    dataset = EpisodeDataset(
        [list(learned)], card.contract, policy.horizon, told=recipe.told, every=recipe.every,
        camera_names=robot.camera_names,
    )  # fmt: skip
    if dataset.hash != card.data.get("episodes"):
        get_log().warning("%s: not the episodes that the policy was trained on", ", ".join(map(str, episodes)))
    moments = ReadableMoments(dataset, out, MAX_BAD_SHARE)
    stream = BatchStream(moments, policy.collator, batch_size, seed=recipe.seed)
    log = MetricsLog(out)

    def report(step: int, losses: Mapping[str, float]) -> None:
        if step % LOG_EVERY == 0 or step == config.steps - 1:
            log.write(step + 1, config.method, {f"loss/{name}": value for name, value in losses.items()})

    try:
        policy.model.expert = distil(policy.model, stream, config, detect(device, "float32"), report)
    finally:
        log.close()
    scores = {"distilled": {"from_step": card.step, **asdict(config)}}
    card = replace(
        card, stage=f"distilled by {config.method}", flow_steps=1, guidance=1.0, scores=scores, versions=versions()
    )
    save_checkpoint(final, policy.model, policy.tokenizer, card)
    return final
