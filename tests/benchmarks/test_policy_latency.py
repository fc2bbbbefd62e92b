"""The benchmark of a policy's latency runs, and its two policies act alike."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import policy_latency
finally:
    sys.path.remove(str(BENCHMARKS))

CPU = torch.device("cpu")


def test_both_policies_act_alike_and_every_variant_is_timed(capsys):
    ratio = policy_latency.run("tiny", CPU, torch.float32, cameras=2, steps=2, rounds=1, cpu_time=True)
    printed = capsys.readouterr().out
    assert ratio > 0
    assert "chunks equal to" in printed
    for name in ("straightforward", "without its logits", "ours, looking", "ours, 2 steps", "one-step student"):
        assert name in printed


def test_a_difference_is_noticed():
    config = policy_latency.policy_config("tiny")
    ours, plain = policy_latency.make_policies(config, CPU)
    policy_latency.share(ours, plain)
    case = policy_latency.Case(ours, plain, *policy_latency.observation(config, 1, CPU))
    plain.weights = {**plain.weights, "act_adaptor.0.weight": 2 * plain.weights["act_adaptor.0.weight"]}
    with pytest.raises(AssertionError, match="chunks differ"):
        policy_latency.check(case, 2)
