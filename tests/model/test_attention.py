"""Every kernel equals PyTorch's attention on each segment alone, in value and gradient."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gemvlm.model import attention, fused_attention
from gemvlm.model.attention import Packing, using
from gemvlm.model.fused_attention import SQUARE
from gemvlm.model.tiled_attention import BLOCK

HEADS, KEY_HEADS, SIZE = 4, 2, 8
LENGTHS = ([1], [BLOCK], [BLOCK + 1, 1, 2 * BLOCK], [5, 130, 7, 47, 48, 49, 126], [20, 20, 20], [128, 128], [300, 84])


def tensors(tokens: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, heads, tokens, SIZE, generator=draw).requires_grad_() for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def one_by_one(
    inputs: Sequence[torch.Tensor], lengths: Sequence[int], causal: bool, scale: float | None = None
) -> torch.Tensor:
    parts = zip(*(t.split(list(lengths), dim=2) for t in inputs), strict=True)
    outs = [F.scaled_dot_product_attention(*part, is_causal=causal, enable_gqa=True, scale=scale) for part in parts]
    return torch.cat(outs, dim=2).transpose(1, 2)


@pytest.fixture
def flash_attn(monkeypatch) -> None:
    """The package's function as its documentation states it, computed segment by segment."""

    def flash_attn_varlen_func(q, k, v, cu_q, cu_k, longest_q, longest_k, *, softmax_scale, causal):
        assert torch.equal(cu_q, cu_k)
        assert (cu_q.dtype, longest_q, longest_k) == (torch.int32, int(cu_q.diff().max()), int(cu_k.diff().max()))
        rows = [t.transpose(0, 1)[None] for t in (q, k, v)]
        return one_by_one(rows, cu_q.diff().tolist(), causal, softmax_scale)[0]

    package = SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func)
    monkeypatch.setattr(fused_attention, "_flash_attn", lambda: package)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(
    ("kernel", "causal"),
    [("tiles", True), ("rows", True), ("rows", False), ("flash", True), ("flash", False)],
)
def test_segments_are_attended_to_as_if_alone(lengths, kernel, causal, flash_attn):
    inputs = tensors(sum(lengths))
    upstream = torch.randn(1, sum(lengths), HEADS, SIZE)
    with using(kernel):
        found = Packing(lengths, causal=causal, device="cpu").attend(*inputs, 0.3)
    expected = one_by_one(inputs, lengths, causal, 0.3)
    torch.testing.assert_close(found, expected, atol=3e-6, rtol=0)
    ours, theirs = (torch.autograd.grad(out, inputs, upstream) for out in (found, expected))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=5e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("lengths", LENGTHS[2:4], ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_flex_attends_to_segments_as_if_alone(lengths, causal):
    """In value only: on a CPU it has no backward pass."""
    inputs = [t.detach() for t in tensors(sum(lengths))]
    with using("flex"):
        found = Packing(lengths, causal=causal, device="cpu").attend(*inputs, 0.3)
    torch.testing.assert_close(found, one_by_one(inputs, lengths, causal, 0.3), atol=3e-6, rtol=0)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_squares_that_flex_visits_hold_all_there_is_to_see(lengths, causal):
    """The plain version of it asks every pair; a compiled one visits the listed squares and asks in the masked ones."""
    total = sum(lengths)
    segment = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    expected = segment[:, None] == segment
    blocks = Packing(lengths, causal=causal, device="cpu").segments.blocks
    found = torch.zeros_like(expected)
    zero, count = torch.tensor(0), -(-total // SQUARE)
    for asked, counts, columns in (
        (True, blocks.kv_num_blocks, blocks.kv_indices),
        (False, blocks.full_kv_num_blocks, blocks.full_kv_indices),
    ):
        for row in range(count):
            for column in columns[0, 0, row, : int(counts[0, 0, row])].tolist():
                query = torch.arange(row * SQUARE, min(total, (row + 1) * SQUARE))
                key = torch.arange(column * SQUARE, min(total, (column + 1) * SQUARE))
                seen = blocks.mask_mod(zero, zero, query[:, None], key)
                found[query[:, None], key] = seen if asked else True
                assert asked or seen.all()
    assert torch.equal(found, expected.tril() if causal else expected)


@pytest.mark.parametrize("causal", [True, False])
def test_flex_visits_only_squares_with_something_to_see(causal):
    """Ten segments of two squares each: 3 (causal) or 4 of their 4 pairs, of 400."""
    blocks = Packing([256] * 10, causal=causal, device="cpu").segments.blocks
    assert int(blocks.kv_num_blocks.sum()) == (20 if causal else 0)
    assert int(blocks.full_kv_num_blocks.sum()) == (10 if causal else 40)


@pytest.mark.parametrize("kernel", ["tiles", "rows"])
def test_autocast_computes_in_half_precision_and_hands_gradients_back_in_their_types(kernel):
    lengths = [60, 3, 100]
    query, key, value = tensors(sum(lengths))
    half = value.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16), using(kernel):
        found = Packing(lengths, causal=True, device="cpu").attend(query, key, half, None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), one_by_one([query, key, value], lengths, True), atol=0.03, rtol=0.03)
    found.float().square().sum().backward()
    assert [t.grad.dtype for t in (query, key, half)] == [torch.float32, torch.float32, torch.bfloat16]


def test_the_kernel_follows_device_precision_and_size(monkeypatch):
    def kernel(device: str, dtype: torch.dtype, causal: bool) -> str:
        query = torch.empty(1, HEADS, 30, SIZE)
        return Packing([10, 20], causal=causal, device=device).kernel(query, query.to(dtype))

    assert kernel("cuda", torch.bfloat16, True) == kernel("cuda", torch.float16, False) == "flash"
    assert kernel("cuda", torch.float32, True) == "flex"
    assert kernel("cpu", torch.float32, True) == kernel("cpu", torch.bfloat16, True) == "tiles"
    assert kernel("cpu", torch.float32, False) == kernel("mps", torch.float32, True) == "rows"
    monkeypatch.setattr(attention, "LARGEST_SCORES", 1000)
    assert kernel("cpu", torch.float32, True) == "rows"


def test_nothing_is_kept_where_nothing_learns():
    with torch.no_grad():
        out = Packing([50, 60], causal=True, device="cpu").attend(*tensors(110), 0.5)
    assert out.grad_fn is None
