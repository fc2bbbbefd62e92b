"""A policy trains in the one loop, is killed and goes on bit for bit, and its checkpoint acts by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robot_episodes import CONTRACT, SIDE, robot_episode, write_episodes
from safetensors.torch import load_file, save_file

from gemvlm.data.actions import ActionCollator, EpisodeDataset, ReadableMoments
from gemvlm.data.episodes import EpisodeData, LeRobotFolder, write_lerobot
from gemvlm.data.quarantine import QuarantineError
from gemvlm.inference import load
from gemvlm.inference.policy import GemPolicy, load_policy
from gemvlm.model.gem_vla import GemVla
from gemvlm.model.policy_card import POLICY_FILE, PolicyCard
from gemvlm.recipes import plan, vla_run
from gemvlm.recipes.vla import VlaRecipe
from gemvlm.recipes.vla_debug import EXPERT, VLA_DEBUG
from gemvlm.recipes.vla_episodes import REASONS, Robot
from gemvlm.recipes.vla_run import train_policy
from gemvlm.robot import Committed, Policy, RobotObservation
from gemvlm.sample import Frame
from gemvlm.training import loop
from gemvlm.training.loop import Run
from gemvlm.training.metrics import read_metrics
from gemvlm.training.optimizer import GroupOptimizer
from gemvlm.training.signals import Stopped

pytest.importorskip("av", reason="LeRobot's videos need PyAV: pip install 'gemvlm[curate]'")
pytest.importorskip("pyarrow", reason="LeRobot's tables need pyarrow: pip install 'gemvlm[curate]'")

SHORT = replace(VLA_DEBUG, stages=tuple(replace(stage, steps=3, batch_size=2) for stage in VLA_DEBUG.stages))
ACTIONS_ALONE = replace(SHORT, name="actions", stages=(replace(EXPERT, steps=2, batch_size=2),))


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("sets") / "spots")


def run_of(out: Path, **changes: Any) -> Run:
    return Run(out, **({"log_every": 1, "checkpoint_every": 1, "callback_every": 2, "show_progress": False} | changes))


def carry_out(recipe: VlaRecipe, out: Path, episodes: Path, **options: Any) -> bool:
    return train_policy(recipe, out, [episodes], device="cpu", run=run_of(out), **options)


@pytest.fixture(scope="module")
def trained(episodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert carry_out(SHORT, out, episodes)
    return out


@pytest.fixture(scope="module")
def policy(trained: Path) -> GemPolicy:
    return load_policy(trained / "final", "cpu")


def seen(number: int = 0, **changes: Any) -> RobotObservation:
    episode = robot_episode(number)
    images = {camera: episode.frames(camera, [0])[0].image for camera in CONTRACT.cameras}
    return replace(RobotObservation(images, episode.state()[0], episode.instruction), **changes)


def test_what_does_not_fit_is_told_before_the_first_step(
    episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_available", lambda runtime: 1e6)
    with pytest.raises(ValueError, match=r"stage '1-expert' of vla_debug is planned to take .*lower the stage's batch"):
        carry_out(SHORT, tmp_path, episodes)
    assert not list(tmp_path.glob("step-*"))


def test_losses_and_held_out_errors_are_logged(trained: Path) -> None:
    lines = read_metrics(trained / "metrics.jsonl")
    steps = [line for line in lines if "lr_factor" in line]
    assert all(0 < line["utilisation"] < 2 and line["operations_per_sample"] > 1e6 for line in steps)
    assert steps[-1]["operations_per_sample"] > steps[0]["operations_per_sample"]  # the expert alone, then everything
    assert all("loss/action" in line for line in lines if "lr_factor" in line)
    assert "loss/depth" in [line for line in lines if "lr_factor" in line][-1]
    errors = [line for line in lines if "held_out/action" in line]
    assert errors and {f"held_out/{name}" for name in CONTRACT.action_names} <= errors[-1].keys()


def test_stopped_anywhere_it_goes_on_bit_for_bit(
    trained: Path, episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in both stages, the second with averages: the same weights, tensor for tensor, and the same numbers
    (C4: the release lost the optimiser and its place in the data)."""
    train_step = loop.train_step
    for at in (2, 5):
        done = [0]

        def step(*given: Any, at: int = at, done: list[int] = done) -> Any:
            outcome = train_step(*given)
            done[0] += 1
            if done[0] == (at if at == 2 else at - 2):
                os.kill(os.getpid(), signal.SIGTERM)
            return outcome

        monkeypatch.setattr(loop, "train_step", step)
        with pytest.raises(Stopped):
            carry_out(SHORT, tmp_path, episodes)
    monkeypatch.setattr(loop, "train_step", train_step)
    assert carry_out(SHORT, tmp_path, episodes)
    ours, theirs = (load_file(out / "final" / "model.safetensors") for out in (tmp_path, trained))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    rates = ("samples_per_s", "images_per_s", "tokens_per_s", "utilisation")
    told = [
        [{k: v for k, v in line.items() if k not in rates} for line in read_metrics(out / "metrics.jsonl")]
        for out in (tmp_path, trained)
    ]
    assert told[0] == told[1]


def test_only_the_newest_checkpoints_are_kept(trained: Path) -> None:
    """C3: the release kept two hundred, each twice."""
    assert len(list(trained.glob("step-*"))) == 2
    assert not list((trained / "final").glob("optimizer*"))


def test_the_checkpoint_explains_itself(trained: Path, policy: GemPolicy) -> None:
    card = PolicyCard.read(trained / "final")
    assert card.contract == CONTRACT and card.embodiment == "metaworld" and card.stage == "final" and card.step == 6
    assert card.normalisation["action"].statistics.names == CONTRACT.action_names
    assert set(card.data) == {"episodes", "held out", "learned", "measured", "pictures", "units"}
    assert not [p for p in (trained / "final").iterdir() if p.suffix in (".pt", ".pkl", ".bin")]
    assert isinstance(policy, Policy) and policy.horizon == 8 and policy.executed == 4


def test_held_out_episodes_are_never_learned_from(trained: Path) -> None:
    card = PolicyCard.read(trained / "final")
    assert card.data["learned"] + card.data["measured"] == 12 and card.data["measured"] >= 1


def test_an_answer_does_not_depend_on_its_neighbours(policy: GemPolicy) -> None:
    one, other = seen(0), seen(1)
    together = policy.act([one, other, one], [7, 8, 9])
    alone = policy.act([one], [7])[0]
    assert together[0].actions.shape == (8, 4) and together[0].rate_hz == CONTRACT.rate_hz
    np.testing.assert_allclose(together[0].actions, alone.actions, atol=2e-5)
    assert not np.allclose(together[0].actions, together[2].actions)
    small = GemPolicy(policy.model, policy.tokenizer, policy.card, batch_size=1).act([one, other, one], [7, 8, 9])
    for chunk, reference in zip(small, together, strict=True):
        np.testing.assert_allclose(chunk.actions, reference.actions, atol=2e-5)


def test_a_chunk_continues_what_is_committed(policy: GemPolicy) -> None:
    """Two robots of a batch with other amounts, and one with none."""
    first = policy.act([seen(0)], [1])[0]
    given = [Committed(first.actions[2:5], 3), Committed(first.actions[2:4], 2), None]
    chunks = policy.act([seen(0), seen(0), seen(0)], [2, 2, 2], given)
    np.testing.assert_allclose(chunks[0].actions[:3], first.actions[2:5], atol=1e-4)
    np.testing.assert_allclose(chunks[1].actions[:2], first.actions[2:4], atol=1e-4)
    np.testing.assert_allclose(chunks[2].actions, policy.act([seen(0)], [2])[0].actions, atol=2e-5)


def test_a_chunk_stays_near_to_the_rest_of_the_one_before(policy: GemPolicy) -> None:
    first = policy.act([seen(0)], [1])[0].actions
    rest = first[2:]
    cut, near = (policy.act([seen(0)], [2], [Committed(part, 2)])[0].actions for part in (rest[:2], rest))
    np.testing.assert_allclose(near[:2], rest[:2], atol=1e-4)
    behind = slice(2, len(rest))
    apart = [np.abs(chunk[behind] - rest[behind]).mean() for chunk in (cut, near)]
    assert apart[1] < 0.8 * apart[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {}}, "camera right, left missing"),
        ({"state": np.zeros(3, np.float32)}, "4 finite numbers: x, y, z, gripper_opening"),
        ({"state": np.full(4, np.nan, np.float32)}, "4 finite numbers"),
        ({"images": dict.fromkeys(CONTRACT.cameras, np.zeros((4, SIDE, 1), np.uint8))}, "uint8 (H, W, 3)"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(policy: GemPolicy, changes: dict[str, Any], words: str) -> None:
    observation = seen(0)
    for name, value in changes.items():
        object.__setattr__(observation, name, value)  # as a robot may send it
    with pytest.raises(ValueError) as refused:
        policy.act([observation], [0])
    assert words in str(refused.value) and "observation 0" in str(refused.value)


def test_pictures_of_another_size_are_refused_at_the_start(policy: GemPolicy) -> None:
    assert policy.picture_sizes == dict.fromkeys(CONTRACT.cameras, (SIDE, SIDE))
    assert policy.size_for(None, 96) == policy.size_for(SIDE, 96) == SIDE
    with pytest.raises(ValueError, match=r"learned from pictures of .*\(48, 48\).*not 96 pixels a side; leave --size"):
        policy.size_for(96, 96)


def test_a_picture_damaged_in_the_middle_is_replaced_and_named(episodes: Path, tmp_path: Path) -> None:
    """Which moment stands there instead does not depend on what was read before; too many damaged ones stop it."""
    folder = LeRobotFolder(episodes)
    damaged = [folder[0], replace(folder[1], data=Torn(folder[1].data, {5, 6})), folder[2]]
    dataset = EpisodeDataset([damaged], CONTRACT, 8)
    moments = ReadableMoments(dataset, tmp_path, 0.01)
    length, ids = folder[0].length, [item.id for item in moments]
    assert len(ids) == len(dataset) and [i for i, item in enumerate(dataset_ids(dataset)) if item != ids[i]] == [
        length + 5,
        length + 6,
    ]
    assert moments[length + 6].id == ReadableMoments(dataset, tmp_path / "again", 0.01)[length + 6].id
    lines = [json.loads(line) for line in (tmp_path / "bad_moments.jsonl").read_text().splitlines()]
    assert [line["moment"] for line in lines] == [f"{folder[1].id}@5", f"{folder[1].id}@6"]
    assert "torn" in lines[0]["reason"]
    whole = [replace(folder[n], data=Torn(folder[n].data, set(range(1, length)))) for n in range(2)]
    with pytest.raises(QuarantineError, match=f"{length + 1} moments of {2 * length} can't be read, such as"):
        list(ReadableMoments(EpisodeDataset([whole], CONTRACT, 8), tmp_path / "many", 0.01))


@dataclass(frozen=True)
class Torn:
    """An episode whose pictures at some frames can't be read."""

    data: EpisodeData
    bad: set[int]

    def signal(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.data.signal(name, start, stop)

    def frames(self, camera: str, indices: Sequence[int]) -> tuple[Frame, ...]:
        if torn := self.bad & set(indices):
            raise ValueError(f"frames {sorted(torn)} are torn")
        return self.data.frames(camera, indices)


def dataset_ids(dataset: EpisodeDataset) -> list[str]:
    return [f"{dataset.episodes[n].id}@{t}" for n, t in map(dataset.moment, range(len(dataset)))]


def test_what_is_no_policy_says_so(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"this is the folder of a run: give .*final"):
        load_policy(trained)
    with pytest.raises(ValueError, match="as is the folder"):
        load_policy(tmp_path / "nothing")
    with pytest.raises(ValueError, match="a policy, which acts and does not answer: use it with `gemvlm vla`"):
        load(trained / "final")


def test_a_damaged_card_is_refused_by_name(trained: Path, tmp_path: Path) -> None:
    card = json.loads((trained / "final" / POLICY_FILE).read_text())
    del card["normalisation"]["fields"]["action"]
    (tmp_path / POLICY_FILE).write_text(json.dumps(card))
    with pytest.raises(ValueError, match="no statistics of 'action'; there are \\['state'\\]"):
        PolicyCard.read(tmp_path).normalisation["action"]
    card["contract"]["turn"] = "half"
    (tmp_path / POLICY_FILE).write_text(json.dumps(card))
    with pytest.raises(ValueError, match="unexpected fields \\['turn'\\]"):
        PolicyCard.read(tmp_path)


def test_a_policy_begins_with_another(trained: Path, episodes: Path, tmp_path: Path) -> None:
    """Of the joint one, the painter is left behind where it has no place; the rest is taken tensor by tensor."""
    once = replace(ACTIONS_ALONE, stages=(replace(EXPERT, steps=1, batch_size=2, learning_rates={"expert": 1e-9}),))
    assert carry_out(once, tmp_path, episodes, start=[str(trained / "final")])
    ours, theirs = (load_file(out / "final" / "model.safetensors") for out in (tmp_path, trained))
    assert {name for name in theirs if name not in ours} == {
        name for name in theirs if name.startswith(("diffusion_connector.", "sana.", "vae."))
    }
    assert [name for name in ours if not torch.allclose(ours[name], theirs[name], atol=1e-6)] == []


def test_a_policy_begins_with_a_published_expert_on_its_backbone(
    trained: Path, episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noises: set[float] = set()

    class Noted(ActionCollator):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            noises.add(self.state_noise)

    monkeypatch.setattr(vla_run, "ActionCollator", Noted)
    theirs = load_file(trained / "final" / "model.safetensors")
    qwen, expert = tmp_path / "qwen", tmp_path / "expert"
    shutil.copytree(trained / "final", qwen)
    (qwen / POLICY_FILE).unlink()
    save_file({n: t for n, t in theirs.items() if n.startswith(("model.", "lm_head."))}, qwen / "model.safetensors")
    expert.mkdir()
    own = {f"rdt.{n.removeprefix('expert.')}": t for n, t in theirs.items() if n.startswith("expert.")}
    save_file(own, expert / "model.safetensors")
    size = {"action_mean": [0.0] * 4, "action_std": [1.0] * 4, "action_min": [-2.0] * 4, "action_max": [2.0] * 4}
    (tmp_path / "action_stats.json").write_text(json.dumps({"action_count": 9, **size}))
    once = replace(ACTIONS_ALONE, stages=(replace(EXPERT, steps=1, batch_size=2, learning_rates={"expert": 1e-9}),))
    begin = [f"qwen={qwen}", f"expert={expert}"]
    out = tmp_path / "run"
    assert carry_out(once, out, episodes, start=begin, action_statistics=tmp_path / "action_stats.json")
    ours = load_file(out / "final" / "model.safetensors")
    assert [name for name in ours if not torch.allclose(ours[name], theirs[name], atol=1e-6)] == []
    card = PolicyCard.read(out / "final")
    assert card.normalisation.fields["action"].maximum.tolist() == [2.0] * 4
    state = np.array([0.4, -3.0, 250.0, 0.0], np.float32)[: card.model.expert.state]
    np.testing.assert_array_equal(card.normalisation["state"].normalise(state), state)  # as theirs saw it
    assert ACTIONS_ALONE.state_noise > 0 and noises == {0.0}
    shutil.rmtree(out / "final")
    assert carry_out(once, out, episodes)  # goes on, and nobody says again what it began with
    assert PolicyCard.read(out / "final").normalisation.to_dict() == card.normalisation.to_dict()
    with pytest.raises(ValueError, match="an expert needs one backbone"):
        carry_out(once, tmp_path / "alone", episodes, start=[begin[1]])
    del own[next(iter(own))]
    save_file(own, expert / "model.safetensors")
    with pytest.raises(ValueError, match="missing"):
        carry_out(once, tmp_path / "less", episodes, start=begin)
    (tmp_path / "action_stats.json").write_text(json.dumps({"action_count": 9} | {k: v[:3] for k, v in size.items()}))
    with pytest.raises(ValueError, match="statistics of 3 numbers, but the model's actions have 4"):
        carry_out(once, out, episodes, start=begin, action_statistics=tmp_path / "action_stats.json")


def test_joint_training_refuses_a_start_that_cannot_paint(episodes: Path, tmp_path: Path) -> None:
    """A17: the release's joint training began with a random connector, in silence."""
    assert carry_out(ACTIONS_ALONE, tmp_path / "alone", episodes)
    with pytest.raises(ValueError, match="without generative supervision"):
        carry_out(SHORT, tmp_path / "joint", episodes, start=[str(tmp_path / "alone" / "final")])


def test_joint_training_refuses_episodes_without_depth(tmp_path: Path) -> None:
    plain = write_episodes(tmp_path / "plain", depth=False)
    with pytest.raises(ValueError, match="no camera of the"):
        carry_out(SHORT, tmp_path / "run", plain)


def test_a_folder_of_another_run_is_refused(trained: Path, episodes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="go on with that recipe"):
        carry_out(ACTIONS_ALONE, trained, episodes)
    other = write_episodes(tmp_path / "other", 9)
    with pytest.raises(ValueError, match="belongs to another run"):
        carry_out(SHORT, trained, other)


def test_failures_and_other_robots_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_lerobot(folder, [robot_episode(n, success=n != 3) for n in range(5)])
    with pytest.raises(QuarantineError, match=r"5 of 5 episodes can't be used.*bad_episodes.jsonl"):
        carry_out(SHORT, tmp_path / "wrong", folder, robot=Robot.named("metaworld", cameras={"wrist": "wrist"}))
    assert len((tmp_path / "wrong" / REASONS).read_text().splitlines()) == 5
    assert carry_out(ACTIONS_ALONE, tmp_path / "run", folder)
    card = PolicyCard.read(tmp_path / "run" / "final")
    assert (card.data["learned"], card.data["measured"]) == (4, 0)


def test_questions_need_a_recipe_that_asks_them(episodes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not learn from questions"):
        carry_out(SHORT, tmp_path, episodes, text=tmp_path)


def test_only_matrices_of_the_expert_are_decayed() -> None:
    """B10: the release decays norms, biases, embeddings and registers, too, at one rate for all."""
    model = GemVla(SHORT.policy(4, 4))
    stage = replace(SHORT.stages[1], learning_rates={"expert": 1e-3, "language": 1e-5})
    groups = [
        group for optimizer in GroupOptimizer(model, stage).optimizers.values() for group in optimizer.param_groups
    ]
    rates = {group["peak_lr"] for group in groups}
    assert rates == {1e-3, 1e-5}
    decayed = {name for group in groups if group["weight_decay"] for name in group["names"]}
    plain = {name for group in groups if not group["weight_decay"] for name in group["names"]}
    parameters = dict(model.named_parameters())
    assert decayed and all(parameters[name].ndim == 2 for name in decayed)
    words = ("register_tokens", "pos_emb", "norm", "bias", "embed")
    assert not [name for name in decayed if any(word in name for word in words)]
    assert {"expert.model.register_tokens", "expert.model.x_pos_emb", "expert.model.state_pos_emb"} <= plain


def test_gradients_reach_the_backbone_only_where_they_may(make_policy_batch: Callable[..., Any]) -> None:
    """Off, whole, and halved."""
    norms = {}
    for factor in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        model = GemVla(replace(SHORT, backbone_gradient=factor).policy(4, 4))
        for parameter in model.expert.parameters():
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
        model(make_policy_batch(), losses=("action",))["action"].backward()
        grads = [p.grad for n, p in model.named_parameters() if n.startswith("backbone.") and p.grad is not None]
        norms[factor] = float(torch.stack([g.norm() for g in grads]).norm()) if grads else 0.0
    assert norms[0.0] == 0 < norms[1.0]
    assert norms[0.5] == pytest.approx(norms[1.0] / 2, rel=1e-3)


@pytest.fixture
def make_policy_batch(episodes: Path, policy: GemPolicy) -> Callable[..., Any]:
    def make() -> Any:
        batch = policy.collator.observe([seen(0), seen(1)], [1, 2], 8)
        assert batch.actions is not None
        return replace(batch, actions=replace(batch.actions, chunk=torch.randn(2, 8, 4)))

    return make
