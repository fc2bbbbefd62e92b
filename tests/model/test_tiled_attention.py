"""Tiles equal PyTorch's attention on each segment alone, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gemvlm.model import attention
from gemvlm.model.attention import Packing
from gemvlm.model.tiled_attention import BLOCK

HEADS, KEY_HEADS, SIZE = 4, 2, 8


def tensors(tokens: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, heads, tokens, SIZE, generator=draw).to(dtype).requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def one_by_one(inputs: list[torch.Tensor], lengths: list[int]) -> torch.Tensor:
    parts = zip(*(t.split(lengths, dim=2) for t in inputs), strict=True)
    outs = [F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True) for part in parts]
    return torch.cat(outs, dim=2).transpose(1, 2)


@pytest.mark.parametrize(
    "lengths", [[1], [BLOCK], [BLOCK + 1, 1, 2 * BLOCK], [5, 130, 7, 47, 48, 49], [20, 20, 20]], ids=str
)
@pytest.mark.parametrize("tiled", [True, False])
def test_segments_are_attended_to_as_if_alone(lengths, tiled, monkeypatch):
    if not tiled:
        monkeypatch.setattr(attention, "LARGEST_SCORES", 0)
    inputs = tensors(sum(lengths))
    packing = Packing(lengths, causal=True, device="cpu")
    assert packing._fit_tiles(HEADS) == tiled
    upstream = torch.randn(1, sum(lengths), HEADS, SIZE)
    found = packing.attend(*inputs, None)
    expected = one_by_one(inputs, lengths)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    pairs = zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("limit", [2**26, 0])
def test_autocast_computes_in_half_precision_and_hands_gradients_back_in_their_types(limit, monkeypatch):
    monkeypatch.setattr(attention, "LARGEST_SCORES", limit)
    lengths = [60, 3, 100]
    query, key, value = tensors(sum(lengths))
    half = value.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = Packing(lengths, causal=True, device="cpu").attend(query, key, half, None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), one_by_one([query, key, value], lengths), atol=0.03, rtol=0.03)
    found.float().square().sum().backward()
    assert [t.grad.dtype for t in (query, key, half)] == [torch.float32, torch.float32, torch.bfloat16]


def test_nothing_is_kept_where_nothing_learns():
    with torch.no_grad():
        out = Packing([50, 60], causal=True, device="cpu").attend(*tensors(110), 0.5)
    assert out.grad_fn is None
