"""The policy in LeRobot's own hands: registered, built from features, trained a little, saved and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("lerobot", reason="lerobot is not installed")

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot_policy_gemvlm import GemvlmConfig, GemvlmPolicy

CAMERAS = ("observation.images.right", "observation.images.left")
STATISTICS = {
    key: {
        name: torch.full((4,), value)
        for name, value in {"mean": 0.0, "std": 1.0, "min": -2.0, "max": 2.0, "q01": -2.0, "q99": 2.0}.items()
    }
    for key in ("observation.state", "action")
}


def config(**changes: object) -> GemvlmConfig:
    inputs = {camera: PolicyFeature(FeatureType.VISUAL, (3, 96, 96)) for camera in CAMERAS}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (4,))
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (4,))}
    own = {"device": "cpu", "chunk_size": 6, "n_action_steps": 3, "flow_steps": 2, "push_to_hub": False}
    return GemvlmConfig(input_features=inputs, output_features=outputs, **(own | changes))  # type: ignore[arg-type]


def batch(rows: int = 2) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    found: dict[str, object] = {c: torch.rand(rows, 3, 96, 96, generator=generator) for c in CAMERAS}
    found |= {"observation.state": torch.randn(rows, 4, generator=generator), "task": ["reach the ball"] * rows}
    found |= {"action": torch.randn(rows, 6, 4, generator=generator)}
    found["action_is_pad"] = torch.tensor([[False] * 4 + [True] * 2] * rows)
    return found


@pytest.fixture(scope="module")
def policy() -> GemvlmPolicy:
    return GemvlmPolicy(config())


def test_it_is_found_by_name() -> None:
    assert "gemvlm" in PreTrainedConfig.get_known_choices()
    assert get_policy_class("gemvlm") is GemvlmPolicy


def test_it_learns_and_padded_steps_do_not_count(policy: GemvlmPolicy) -> None:
    policy.train()
    optimizer = torch.optim.AdamW(policy.get_optim_params())
    seen = policy.batches_seen.clone()
    first, _ = policy.forward(batch())
    changed = batch()
    changed["action"][:, 4:] += 100  # type: ignore[index]
    policy.batches_seen.copy_(seen)
    second, told = policy.forward(changed)
    assert float(first.detach()) == pytest.approx(float(second.detach())) == pytest.approx(told["action_loss"])
    losses = []
    for _ in range(6):
        policy.batches_seen.copy_(seen)
        loss, _ = policy.forward(batch())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    policy.forward(batch())[0].backward()
    vision = policy.model.parameter_groups()["vision"].values()
    assert any(p.grad is not None and bool(p.grad.any()) for p in vision), "the pictures don't reach the loss"
    optimizer.zero_grad()


def test_chunks_are_carried_out_one_by_one(policy: GemvlmPolicy) -> None:
    policy.reset()
    before = int(policy.batches_seen)
    taken = [policy.select_action(batch()) for _ in range(4)]
    assert all(action.shape == (2, 4) for action in taken) and int(policy.batches_seen) == before + 2


def test_saved_and_read_back_it_answers_the_same(policy: GemvlmPolicy, tmp_path: Path) -> None:
    policy.save_pretrained(tmp_path)
    other = GemvlmPolicy.from_pretrained(tmp_path, config=policy.config)
    assert torch.equal(other.predict_action_chunk(batch()), policy.predict_action_chunk(batch()))


def test_processors_are_found_and_undo_each_other() -> None:
    before, after = make_pre_post_processors(config(), dataset_stats=STATISTICS)
    given = {camera: torch.rand(3, 96, 96) for camera in CAMERAS}
    given |= {"observation.state": torch.ones(4), "action": torch.ones(4), "task": "reach"}  # type: ignore[dict-item]
    seen = before(given)
    assert torch.allclose(seen["observation.state"], torch.full((1, 4), 0.5))
    assert torch.allclose(after(torch.full((1, 4), 0.5)), torch.ones(1, 4))


def test_without_pictures_it_says_so() -> None:
    blind = config()
    blind.input_features = {"observation.state": PolicyFeature(FeatureType.STATE, (4,))}
    with pytest.raises(ValueError, match="the data set has no a camera"):
        GemvlmPolicy(blind)


def test_depth_is_left_out() -> None:
    own = config()
    own.input_features["observation.images.right_depth"] = PolicyFeature(FeatureType.VISUAL, (1, 96, 96))
    own.validate_features()
    assert set(own.image_features) == set(CAMERAS) and own.robot_state_feature is not None


def test_without_quantiles_least_and_largest_normalise() -> None:
    own = config()
    own.fit_statistics(STATISTICS)
    assert own.normalization_mapping["STATE"] is NormalizationMode.QUANTILES
    lacking = {
        key: {name: value for name, value in numbers.items() if name != "q01"} for key, numbers in STATISTICS.items()
    }
    own.fit_statistics(lacking)
    assert own.normalization_mapping["STATE"] is own.normalization_mapping["ACTION"] is NormalizationMode.MIN_MAX
    before, after = make_pre_post_processors(own, dataset_stats=lacking)
    given = batch(1) | {"action": torch.ones(1, 6, 4)}
    assert torch.allclose(before(given)["action"], torch.full((1, 6, 4), 0.5))
    assert torch.allclose(after(torch.full((1, 4), 0.5)), torch.ones(1, 4))


def test_a_missing_camera_is_named(policy: GemvlmPolicy) -> None:
    policy.reset()
    with pytest.raises(ValueError, match=r"no picture of observation\.images\.left"):
        policy.select_action({name: value for name, value in batch().items() if name != "observation.images.left"})
