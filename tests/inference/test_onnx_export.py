"""ONNX graphs give PyTorch's numbers, at other sizes of batch and condition too, and paint the same picture."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from gemvlm.flow import SigmaTable
from gemvlm.inference import onnx_export
from gemvlm.inference.onnx_export import TOLERANCE, Graph, export_depth, export_expert
from gemvlm.model.action_expert import ActionExpert, Context, ExpertConfig
from gemvlm.model.connector import Connector
from gemvlm.model.generator import RegressionConfig, RegressionHead, SanaFlow
from gemvlm.model.latents import PatchLatents
from gemvlm.model.supervision import GenerativeSupervision

pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")

SANA = {
    "in_channels": 8, "out_channels": 8, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8,
    "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 12,
    "mlp_ratio": 2.0, "qk_norm": "rms_norm_across_heads", "sample_size": 4, "patch_size": 1, "interpolation_scale": 1.0,
}  # fmt: skip


def runner(graph: Graph):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph.path), providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, {name: np.asarray(value) for name, value in inputs.items()})


def test_a_picture_is_painted_without_pytorch(tmp_path: Path) -> None:
    """Three pictures of nine tokens, where two of five were exported; the loop is numpy."""
    torch.manual_seed(0)
    supervision = GenerativeSupervision(
        Connector(10, 12), SanaFlow(SANA, SigmaTable(3.0)), PatchLatents(8, 6, 1), 0.1
    ).eval()
    graphs = export_depth(supervision, tmp_path, 32, 32)
    assert [graph.path.name for graph in graphs] == ["depth_look.onnx", "depth_step.onnx", "depth_decode.onnx"]
    assert all(graph.check() <= TOLERANCE for graph in graphs)
    look, step, decode = (runner(graph) for graph in graphs)

    states, noise = torch.randn(3, 9, 10), torch.randn(3, 8, 4, 4)
    keys, values = look(states=states)
    state, sigmas = noise.numpy(), SigmaTable(3.0).sampling(3)[1].tolist()
    for sigma, later in pairwise(sigmas):
        (velocity,) = step(state=state, sigma=np.array([sigma], np.float32), keys=keys, values=values)
        state = state + np.float32(sigma - later) * velocity
    (picture,) = decode(latents=state)

    with torch.no_grad():
        condition = supervision.condition(
            states.flatten(0, 1), torch.tensor([[0, 9], [9, 18], [18, 27]]), torch.full((3, 2), 3), range(3)
        )
        painted = supervision.generator.sample(condition, supervision.null(1), noise, steps=3, guidance=1.0)
        expected = supervision.latents.decode(painted).clamp(-1, 1)
    np.testing.assert_allclose(picture, expected.numpy(), atol=TOLERANCE)


def test_an_expert_steps_without_pytorch(tmp_path: Path) -> None:
    config = ExpertConfig(3, 4, 5, 16, 1, 2, 1, 1, "layer_inputs", (0,), 1.0, ffn_multiple_of=16)
    torch.manual_seed(0)
    expert = ActionExpert(config, 12).eval()
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.normal_(std=0.2)
    (graph,) = export_expert(expert, tmp_path)
    assert graph.check() <= TOLERANCE

    noisy, time = torch.randn(3, 5, 3), torch.tensor([0.0, 0.4, 0.9])
    with torch.no_grad():
        observed = expert.observe(Context((torch.randn(3, 8, 12),)), torch.randn(3, 4))
        expected = expert.velocity(noisy, time, observed)
    keys, values = (torch.stack(parts).numpy() for parts in zip(*observed.keys_values, strict=True))
    (velocity,) = runner(graph)(noisy=noisy, time=time, robot=observed.state, keys=keys, values=values)
    np.testing.assert_allclose(velocity, expected.numpy(), atol=TOLERANCE * float(expected.abs().max()))


def test_what_is_not_equal_or_takes_no_steps_is_refused(tmp_path: Path) -> None:
    head = RegressionHead(RegressionConfig(12, 8, 1, 8))
    supervision = GenerativeSupervision(Connector(10, 12), head, PatchLatents(8, 6, 1), 0.1)
    with pytest.raises(ValueError, match="no steps"):
        export_depth(supervision, tmp_path, 32, 32)


def test_a_checkpoint_says_what_the_loop_around_its_graphs_needs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    graph = Graph(tmp_path / "depth_step.onnx", {"state": np.zeros((1, 2), np.float32)}, (np.zeros((1, 3)),))
    monkeypatch.setattr(onnx_export, "export_depth", lambda *arguments: asked.append(arguments[1:]) or [graph])
    assert onnx_export.export_checkpoint(str(checkpoint), tmp_path) == [graph]
    assert asked == [(tmp_path, 32, 32)]
    card = json.loads((tmp_path / "export.json").read_text())
    assert card["graphs"]["depth_step.onnx"] == {"inputs": {"state": [1, 2]}, "outputs": [[1, 3]]}
    assert card["encoding"] == {"name": "log", "near_m": 0.25, "far_m": 4.0}
    assert (card["recipe"], card["shift"], card["generator"], card["tolerance"]) == ("tiny", 1.0, "sana", TOLERANCE)
