"""What is asked of the environment."""

from __future__ import annotations

import logging
import random

import pytest
import torch

from gemvlm.runtime import available_cores, default_device, detect, deterministic, get_log, secret, versions


def test_rank_and_world_come_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    alone = detect("cpu")
    assert (alone.rank, alone.world, alone.is_main) == (0, 1, True)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    third = detect("cpu")
    assert (third.rank, third.world, third.is_main) == (3, 4, False)


def test_a_key_that_is_empty_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    monkeypatch.setenv("EMPTY_KEY", "")
    monkeypatch.delenv("NO_KEY", raising=False)
    assert [secret(name) for name in ("SOME_KEY", "EMPTY_KEY", "NO_KEY")] == ["s3cret", None, None]


def test_the_named_device_is_taken_and_the_best_one_otherwise() -> None:
    assert default_device("cpu") == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert default_device().type == best


def test_autocast_is_of_the_matrix_products_only() -> None:
    a = torch.ones(4, 4)
    with detect("cpu", "bfloat16").autocast():
        assert (a @ a).dtype == torch.bfloat16 and (a + a).dtype == torch.float32
    with detect("cpu", "float32").autocast():
        assert (a @ a).dtype == torch.float32


def test_initial_weights_follow_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(random.randrange(1000))
    state = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        with deterministic(seed):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_versions_name_the_code_and_its_libraries() -> None:
    found = versions()
    assert found["torch"] == torch.__version__ and {"python", "commit", "transformers"} <= set(found)
    assert all(isinstance(value, str) for value in found.values())


def test_the_log_has_one_handler_however_often_it_is_asked_for() -> None:
    first = get_log()
    before = list(first.handlers)  # the test runner adds its own
    assert get_log() is first and first.handlers == before


def test_there_is_at_least_one_core() -> None:
    assert available_cores() >= 1


@pytest.mark.parametrize(("rank", "level"), [("0", logging.INFO), ("3", logging.WARNING)])
def test_only_the_first_process_says_more_than_warnings(rank: str, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("gemvlm")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "level", log.level)
    monkeypatch.setenv("RANK", rank)
    assert get_log().level == level
