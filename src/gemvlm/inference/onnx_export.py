"""Parts of a model as ONNX graphs, for machines without PyTorch: the depth generator and the action expert.

Each graph is one step; the loop over steps stays outside, in whatever language. Of depth:

    depth_look    states (M, L, D) of a picture's tokens → keys, values (layers, M, heads, L, d): once for each picture
    depth_step    state (M, C, h, w), sigma (1,), keys, values → velocity (M, C, h, w): data − noise, at each step
    depth_decode  latents (M, C, h, w) → picture (M, 3, H, W) in [-1, 1]

and of a policy:

    expert_step   noisy (R, H, action), time (R,), robot (R, E), keys, values → velocity (R, H, action)

with a file of what the backbone and `ActionExpert.observe` give for it. Beginning at noise of sigma 1, a depth step is
state ← state + (sigma − sigma_next) · velocity; the null condition is `depth_look` of two tokens of 0. `export.json`
beside the graphs says shapes, schedule and encoding. Batch and number of tokens are free, the picture's size is not. A
generator of the kind sana_one_step takes one step from a state of zeros. The backbone is not exported: export-model
writes it for servers of language models.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gemvlm.inference.load import any_checkpoint_folder, load
from gemvlm.inference.policy import load_policy
from gemvlm.model.action_expert import ActionExpert, Observed
from gemvlm.model.generator import RegressionHead, SanaFlow
from gemvlm.model.policy_card import POLICY_FILE
from gemvlm.model.sana_steps import SanaSteps, Seen
from gemvlm.model.supervision import GenerativeSupervision

TOLERANCE = 1e-4
"""Of the largest number that PyTorch gives, in float32: what `Graph.check` accepts."""
OPSET = 20


class DepthLook(nn.Module):
    """States of a picture's tokens → keys and values of every cross-attention."""

    def __init__(self, supervision: GenerativeSupervision):
        super().__init__()
        self.connector, self.sana = supervision.connector, _sana(supervision)

    def forward(self, states: Float[Tensor, "M L D"]) -> tuple[Tensor, Tensor]:
        seen = SanaSteps(self.sana).look(self.connector(states))
        return torch.stack(seen.keys), torch.stack(seen.values)


class DepthStep(nn.Module):
    """One velocity of the flow, at a noise level that all rows share."""

    def __init__(self, supervision: GenerativeSupervision, height: int, width: int):
        super().__init__()
        flow = supervision.generator
        assert isinstance(flow, SanaFlow)
        self.sana, self.levels = flow.sana, flow.table.steps
        positions = SanaSteps(flow.sana).positions(height, width)
        self.positions = None if positions is None else nn.Buffer(positions.detach(), persistent=False)

    def forward(
        self, state: Float[Tensor, "M C h w"], sigma: Float[Tensor, "1"], keys: Tensor, values: Tensor
    ) -> Float[Tensor, "M C h w"]:
        steps = SanaSteps(self.sana)
        seen = Seen(keys.unbind(0), values.unbind(0), None)
        return -steps(state, steps.modulations(self.levels * sigma)[0], self.positions, (seen,))


class DepthDecode(nn.Module):
    """Latents → picture."""

    def __init__(self, supervision: GenerativeSupervision):
        super().__init__()
        self.latents = supervision.latents

    def forward(self, latents: Float[Tensor, "M C h w"]) -> Float[Tensor, "M 3 H W"]:
        return self.latents.decode(latents).clamp(-1, 1)


class ExpertStep(nn.Module):
    """One velocity of a policy's flow, given all that doesn't change during it."""

    def __init__(self, expert: ActionExpert):
        super().__init__()
        self.expert = expert

    def forward(
        self,
        noisy: Float[Tensor, "R H action"],
        time: Float[Tensor, "R"],
        robot: Float[Tensor, "R E"],
        keys: Tensor,
        values: Tensor,
    ) -> Float[Tensor, "R H action"]:
        pairs = tuple(zip(keys.unbind(0), values.unbind(0), strict=True))
        return self.expert.velocity(noisy, time, Observed(pairs, None, robot))


@dataclass(frozen=True)
class Graph:
    """One ONNX file, and numbers that it was checked with: its inputs and what PyTorch gives for them.

    `error` is what `check` found when the file was written.
    """

    path: Path
    inputs: Mapping[str, np.ndarray]
    expected: tuple[np.ndarray, ...]
    error: float = float("nan")

    def check(self, tolerance: float = TOLERANCE) -> float:
        """Runs the file on its inputs; the largest difference as a share of the largest number expected.

        ValueError if that is more than `tolerance`. Needs onnxruntime.
        """
        import onnxruntime

        session = onnxruntime.InferenceSession(str(self.path), providers=["CPUExecutionProvider"])
        found = session.run(None, dict(self.inputs))
        worst = max(
            float(np.abs(own - given).max() / max(np.abs(given).max(), 1e-12))
            for own, given in zip(found, self.expected, strict=True)
        )
        if not worst <= tolerance:
            raise ValueError(
                f"{self.path}: differs from PyTorch by {worst:.1e} of the largest number ({tolerance:.0e})"
            )
        return worst


def export_depth(supervision: GenerativeSupervision, folder: Path, height: int, width: int) -> list[Graph]:
    """Writes the graphs of depth for pictures of `height` x `width` pixels.

    ValueError for a generator that takes no steps, as it is no Sana.
    """
    if isinstance(supervision.generator, RegressionHead):
        raise ValueError("the generator is a regression head, which has no steps; export a model that paints by Sana")
    rows, columns = supervision.latents.grid(height, width)
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(2, 5, supervision.connector.width, generator=draw)
    latents = torch.randn(2, supervision.latents.channels, rows, columns, generator=draw)
    look = DepthLook(supervision)
    with torch.no_grad():
        keys, values = look(states)
    batch, tokens = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("tokens", min=2, max=65_536)
    conditions = {1: batch, 3: tokens}
    step = DepthStep(supervision, rows, columns)
    return [
        _export(
            look, folder / "depth_look.onnx", {"states": states}, ("keys", "values"), {"states": {0: batch, 1: tokens}}
        ),
        _export(
            step,
            folder / "depth_step.onnx",
            {"state": latents, "sigma": torch.tensor([0.7]), "keys": keys, "values": values},
            ("velocity",),
            {"state": {0: batch}, "sigma": {}, "keys": conditions, "values": conditions},
        ),
        _export(
            DepthDecode(supervision),
            folder / "depth_decode.onnx",
            {"latents": latents},
            ("picture",),
            {"latents": {0: batch}},
        ),
    ]


def export_expert(expert: ActionExpert, folder: Path, tokens: int = 6) -> list[Graph]:
    """Writes the graph of one step of a policy's flow."""
    config, draw = expert.config, torch.Generator().manual_seed(0)
    shape = (config.depth, 2, config.kv_heads, tokens, config.head_size)
    inputs = {
        "noisy": torch.randn(2, config.horizon, config.action, generator=draw),
        "time": torch.tensor([0.2, 0.6]),
        "robot": torch.randn(2, config.width, generator=draw),
        "keys": torch.randn(shape, generator=draw),
        "values": torch.randn(shape, generator=draw),
    }
    batch, seen = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("tokens", min=2, max=65_536)
    free: dict[str, Any] = {name: {0: batch} for name in ("noisy", "time", "robot")}
    free |= {name: {1: batch, 3: seen} for name in ("keys", "values")}
    return [_export(ExpertStep(expert), folder / "expert_step.onnx", inputs, ("velocity",), free)]


def export_checkpoint(path: str, folder: Path, height: int | None = None, width: int | None = None) -> list[Graph]:
    """Writes what a checkpoint has: of a GEM its depth, of a policy its expert; and `export.json`.

    Depth has the size that the checkpoint paints, unless given. ValueError for a checkpoint that is not whole.
    """
    checkpoint = any_checkpoint_folder(path)
    if (checkpoint / POLICY_FILE).is_file():
        policy = load_policy(checkpoint, "cpu")
        graphs = export_expert(policy.model.expert.requires_grad_(False), folder)
        config = policy.card.model.expert
        facts: dict[str, Any] = {"flow_steps": policy.card.flow_steps, "expert": config.to_dict()}
        write_card(folder, graphs, {"recipe": policy.card.recipe, **facts})
        return graphs
    pipeline = load(checkpoint, "cpu")
    model, size = pipeline.card.model, pipeline.card.target or {"height": 448, "width": 448}
    supervision = pipeline.gem.supervision.requires_grad_(False)
    graphs = export_depth(supervision, folder, height or size["height"], width or size["width"])
    facts = {"encoding": asdict(model.encoding), "shift": model.shift, "generator": model.generator["kind"]}
    write_card(folder, graphs, {"recipe": pipeline.card.recipe, **facts})
    return graphs


def write_card(folder: Path, graphs: Sequence[Graph], facts: Mapping[str, Any]) -> Path:
    """`export.json`: each graph's inputs and outputs, and what the loop around them needs to know."""
    about = {
        graph.path.name: {
            "inputs": {name: list(value.shape) for name, value in graph.inputs.items()},
            "outputs": [list(value.shape) for value in graph.expected],
        }
        for graph in graphs
    }
    path = folder / "export.json"
    path.write_text(json.dumps({"graphs": about, "tolerance": TOLERANCE, **facts}, indent=2) + "\n")
    return path


def _sana(supervision: GenerativeSupervision) -> nn.Module:
    generator = supervision.generator
    assert isinstance(generator, SanaFlow)
    return generator.sana


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's words about packages that aren't needed and about its own progress."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _export(
    module: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: tuple[str, ...], free: Mapping[str, Any]
) -> Graph:
    """Writes and checks one graph in float32. ImportError says which extra is missing."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'gemvlm[onnx]'", name=error.name) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    module = module.eval()
    with torch.no_grad():
        found = module(*inputs.values())
    with _quietly():
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dict(free),
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    tensors = found if isinstance(found, tuple) else (found,)
    graph = Graph(
        path, {name: value.numpy() for name, value in inputs.items()}, tuple(tensor.numpy() for tensor in tensors)
    )
    return replace(graph, error=graph.check())
