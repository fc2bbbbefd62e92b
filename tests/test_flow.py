"""One direction of time, in full precision, with the published noise levels as data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gemvlm.flow import SigmaTable, integrate, interpolate, uniform_times, velocity

FIXTURES = Path(__file__).parents[1] / "../shared/fixtures/a"


def fixture(name: str) -> dict[str, torch.Tensor]:
    if not FIXTURES.is_dir():
        pytest.skip("the numerical fixtures are not beside this checkout")
    from safetensors.torch import load_file

    return load_file(FIXTURES / f"{name}.safetensors")


def test_noise_at_zero_and_data_at_one() -> None:
    noise, data = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    state = interpolate(noise, data, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.equal(state[0], noise[0])
    assert torch.equal(state[1], data[1])
    assert torch.allclose(state[2], 0.75 * noise[2] + 0.25 * data[2])


def test_velocity_is_the_derivative_of_the_path() -> None:
    noise, data = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    now, later = (interpolate(noise, data, torch.full((2,), t, dtype=torch.float64)) for t in (0.3, 0.3 + 1e-6))
    assert torch.allclose((later - now) / 1e-6, velocity(noise, data), atol=1e-6)


@pytest.mark.parametrize("steps", [1, 5, 30])
def test_integrating_the_true_velocity_arrives_at_the_data(steps: int) -> None:
    noise, data = torch.randn(2, 3), torch.randn(2, 3)
    arrived = integrate(lambda x, t: velocity(noise, data), noise, uniform_times(steps))
    assert torch.allclose(arrived, data, atol=1e-5)


def test_euler_converges_on_a_field_with_a_known_solution() -> None:
    start = torch.ones(1, 1, dtype=torch.float64)
    errors = [abs(integrate(lambda x, t: x, start, uniform_times(steps)).item() - torch.e) for steps in (50, 100)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("steps", [5, 10, 50])
def test_the_flow_stays_in_full_precision_whatever_the_network_returns(steps: int) -> None:
    """B2: half-precision states and times drift (50 steps would end at 0.980)."""
    seen: list[torch.Tensor] = []

    def half(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return torch.ones_like(x, dtype=torch.bfloat16)

    arrived = integrate(half, torch.zeros(2, 3, dtype=torch.bfloat16), uniform_times(steps))
    assert arrived.dtype == torch.float32
    assert torch.allclose(arrived, torch.ones(2, 3), atol=1e-6)
    assert torch.allclose(torch.stack(seen)[:, 0], torch.arange(steps) / steps, atol=1e-7)
    assert interpolate(arrived.bfloat16(), arrived.bfloat16(), torch.zeros(2)).dtype == torch.float32
    assert velocity(arrived.bfloat16(), arrived.bfloat16()).dtype == torch.float32


def test_times_that_do_not_increase_are_refused() -> None:
    for times in ([1.0, 0.0], [0.0], [0.0, 0.5, 0.5]):
        with pytest.raises(ValueError, match="must increase"):
            integrate(lambda x, t: x, torch.zeros(1, 1), torch.tensor(times))


def test_training_levels_equal_the_published_ones() -> None:
    numbers = fixture("depth_loss")
    timestep, sigma = SigmaTable(shift=1.0).training(numbers["in.u"])
    assert torch.equal(timestep, numbers["out.timesteps"])
    assert torch.allclose(sigma, numbers["out.sigmas"], atol=1e-7)
    shifted, _ = SigmaTable(shift=3.0).training(numbers["in.u"])
    assert torch.allclose(shifted, numbers["out.shift3.timesteps"], rtol=1e-6)


def test_the_published_loss_is_ours_with_time_turned_round() -> None:
    numbers = fixture("depth_loss")
    noise, data = numbers["in.noise"], numbers["out.latents"]
    _, sigma = SigmaTable(shift=1.0).training(numbers["in.u"])
    assert torch.allclose(interpolate(noise, data, 1 - sigma), numbers["out.noisy_latents"], atol=1e-6)
    assert torch.allclose(-velocity(noise, data), numbers["out.target"], atol=1e-6)


@pytest.mark.parametrize("shift", [1, 3])
def test_sampling_equals_the_published_loop(shift: int) -> None:
    numbers, tag = fixture("depth_sampling"), f"shift{shift}.cfg5."
    timesteps, sigmas = SigmaTable(shift=float(shift)).sampling(4)
    assert torch.allclose(timesteps.float(), numbers[tag + "timesteps"], rtol=1e-6)
    assert torch.allclose(sigmas.float(), numbers[tag + "sigmas"], atol=1e-6)

    answers = iter(
        numbers[tag + "velocity_uncond"] + 5 * (numbers[tag + "velocity_cond"] - numbers[tag + "velocity_uncond"])
    )
    sampled = integrate(lambda x, t: -next(answers), numbers["in.noise"], SigmaTable(float(shift)).sampling_times(4))
    assert torch.allclose(sampled, numbers[tag + "latents"], atol=1e-4)


def test_sampling_leaves_the_training_table_alone() -> None:
    """A15: the release shares one scheduler, and a sample in between breaks the next training step."""
    table, u = SigmaTable(shift=3.0), torch.rand(100)
    before = table.training(u)
    table.sampling(30)
    assert all(torch.equal(a, b) for a, b in zip(before, table.training(u), strict=True))
    with pytest.raises(AttributeError):
        table.steps = 30  # type: ignore[misc]


def test_every_level_is_distinct_and_belongs_to_its_timestep() -> None:
    """B18: levels rounded to bfloat16 take 355 values of 1000, and six of them become exactly 1."""
    u = (torch.arange(1000) + 0.5) / 1000
    timestep, sigma = SigmaTable(shift=3.0).training(u.bfloat16().float())
    assert sigma.dtype == torch.float32
    timestep, sigma = SigmaTable(shift=3.0).training(u)
    assert len(sigma.unique()) == 1000
    assert (sigma == 1).sum() == 1
    assert torch.allclose(timestep / 1000, sigma, rtol=1e-6)
    assert SigmaTable(shift=3.0).training(torch.tensor([0.99999997]))[1] > 0
    assert sigma.mean() == pytest.approx(0.678, abs=2e-3)
