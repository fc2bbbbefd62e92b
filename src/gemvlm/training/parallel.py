"""One run on one process or many: who holds which weights, and what the processes tell each other.

Weights are spread by PyTorch's FSDP2 (`torch.distributed.fsdp.fully_shard`), float32 where they are kept and in the
run's precision where they are gathered. The decoder's layers, which every process runs once for each batch, are
gathered layer by layer. What the data decide, whether the vision tower, the generator (once for each size of picture)
or the language head run, is gathered once before a batch and reduced once after it: so a sample without image, depth or
answer on one process can neither hang the others nor skew their sum. A process that has nothing at all to learn from a
batch while others have computes a filler of weight zero (`share.py`).

Processes are started by `torchrun` (or `accelerate launch`, or SLURM's `srun`); RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR and MASTER_PORT say who they are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gemvlm.model.learner import Learner
from gemvlm.runtime import Runtime

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it gives up: longer than the slowest checkpoint."""


@dataclass(frozen=True)
class Sharding:
    """How the weights, their gradients and the optimiser's state lie on the processes.

    "replicate": everywhere whole. "shard": each process holds its share. "hybrid": each `group` of consecutive
    processes (by default those of one machine) holds a copy together, where the network between machines is slow.
    """

    kind: Literal["replicate", "shard", "hybrid"] = "shard"
    group: int | None = None

    def mesh(self, world: int, local_world: int) -> tuple[int, int]:
        """(copies, processes that hold one copy). ValueError if they don't fill the world."""
        size = {"replicate": 1, "shard": world, "hybrid": self.group or local_world}[self.kind]
        if size < 1 or world % size:
            raise ValueError(
                f"sharding {self.kind!r}: {world} processes can't be divided into groups of {size}; choose a group "
                "that divides them"
            )
        return world // size, size


class Processes:
    """The processes of a run, seen from one of them. Alone it does nothing and costs nothing.

    What they tell each other goes by CPU (gloo), so that no process waits for its device to say a number.
    """

    def __init__(self, runtime: Runtime, sharding: Sharding | None = None):
        self.rank, self.world, self.is_main = runtime.rank, runtime.world, runtime.is_main
        self._runtime, self._sharding = runtime, sharding or Sharding()

    @contextlib.contextmanager
    def joined(self) -> Iterator[Processes]:
        """Connected to the others while inside. Every process must enter."""
        if self.world == 1 or dist.is_initialized():
            yield self
            return
        device = self._runtime.device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=self.rank, world_size=self.world, timeout=PATIENCE)
        try:
            yield self
        finally:
            dist.destroy_process_group()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes, the same on each."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def texts(self, text: str) -> list[str]:
        """What every process says, in the order of their ranks."""
        if self.world == 1:
            return [text]
        own = torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(lengths, torch.tensor([len(own)]))
        longest = max(int(length) for length in lengths)
        padded = torch.cat([own, own.new_zeros(longest - len(own))])
        found = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(found, padded)
        pairs = zip(found, lengths, strict=True)
        return [piece[: int(length)].numpy().tobytes().decode().strip() for piece, length in pairs]

    def barrier(self) -> None:
        self.sum([0.0])

    def agree(self, facts: Mapping[str, str]) -> None:
        """ValueError, on every process, unless all state the same facts."""
        said = [json.loads(text) for text in self.texts(json.dumps(facts))]
        for rank, other in enumerate(said):
            for name in sorted({*said[0], *other}):
                ours, theirs = said[0].get(name), other.get(name)
                if ours != theirs:
                    raise ValueError(
                        f"the processes disagree on {name}: {ours} on process 0, {theirs} on process {rank}; start all "
                        "with the same recipe, data and code, on a folder that they share"
                    )

    def spread(self, model: Learner) -> None:
        """Lays a model, whole and the same on every process, on their devices; none of these has to hold all of it."""
        if self.world == 1:
            model.to(self._runtime.device)
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        shape = self._sharding.mesh(self.world, self._runtime.local_world)
        mesh = init_device_mesh(self._runtime.device.type, shape, mesh_dim_names=("copies", "shares"))
        narrow = torch.bfloat16 if self._runtime.precision == "bfloat16" else None
        policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for layer in model.backbone.qwen.model.language_model.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        for tower in _towers(model):
            fully_shard(tower, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        latents = None if model.supervision is None else model.supervision.latents
        frozen = set() if latents is None else set(latents.parameters())
        root: Any = fully_shard(model, mesh=mesh, mp_policy=policy, ignored_params=frozen)
        root.set_reduce_scatter_unused_params(True)
        if latents is not None:
            latents.to(self._runtime.device)
        # The stream of states stays float32, as autocast keeps it on one process.
        model.backbone.qwen.model.language_model.embed_tokens.register_forward_hook(lambda *call: call[-1].float())
        model.register_forward_pre_hook(_gather_towers)

    @contextlib.contextmanager
    def whole(self, model: Learner) -> Iterator[None]:
        """Inside, every process may use any part of the model, all processes alike; to be entered after a step.

        Weights that are gathered in the run's precision are used in it.
        """
        units: list[Any] = [] if self.world == 1 else [model, *_towers(model)]
        for unit in units:
            unit.unshard()
        try:
            with self._runtime.autocast() if units else contextlib.nullcontext():
                yield
        finally:
            for unit in units:
                unit.reshard()


def _towers(model: Learner) -> list[nn.Module]:
    """What data decide whether, and how often, it runs."""
    painter = () if model.supervision is None else (model.supervision.generator,)
    parts = (model.backbone.qwen.model.visual, *painter)
    return [part for part in parts if any(True for _ in part.parameters())]


def _gather_towers(model: nn.Module, args: object) -> None:
    for tower in _towers(model):  # type: ignore[arg-type]
        tower.unshard()  # type: ignore[operator]


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered from the processes; every process must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def own_rows(tensor: Tensor) -> slice:
    """The rows of the whole tensor that this process holds."""
    rows = tensor.shape[0] if tensor.ndim else 0
    for dimension, placement in enumerate(getattr(tensor, "placements", ())):
        if placement.is_shard():
            mesh: Any = tensor.device_mesh  # type: ignore[attr-defined]
            each = -(-rows // mesh.size(dimension))
            place = mesh.get_local_rank(dimension)
            return slice(min(place * each, rows), min((place + 1) * each, rows))
    return slice(0, rows)
