"""GPUs by name: memory, and dense bfloat16 products per second with float32 sums, as their makers' data sheets say."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

ASSUMED_UTILISATION = 0.40
"""Share of the peak that a plan expects of useful work. [ours: 35 to 45 % is what good trainings of this size reach]"""
RESERVED = 0.08
"""Share of a GPU's memory that the driver, the libraries' workspaces and fragments of the allocator take. [ours]"""


@dataclass(frozen=True)
class Gpu:
    """Memory in GiB, peak in 10¹² operations per second."""

    name: str
    memory_gib: int
    peak_tera: int


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("rtx4090-24gb", 24, 165),
        Gpu("rtx5090-32gb", 32, 210),
        Gpu("a6000-48gb", 48, 155),
        Gpu("l40s-48gb", 48, 362),
        Gpu("a100-40gb", 40, 312),
        Gpu("a100-80gb", 80, 312),
        Gpu("a800-80gb", 80, 312),
        Gpu("h100-80gb", 80, 989),
        Gpu("h20-96gb", 96, 148),
        Gpu("h200-141gb", 141, 989),
        Gpu("b200-180gb", 180, 2250),
    )
}


def find_gpu(name: str) -> Gpu:
    """ValueError lists those that are known."""
    if name not in GPUS:
        raise ValueError(f"unknown GPU {name!r}; there are {', '.join(GPUS)}")
    return GPUS[name]


def peak_of(device: torch.device) -> float:
    """Operations per second that `device` could do: of a GPU in the table, else measured on one large product."""
    if device.type == "cuda":
        told = torch.cuda.get_device_name(device).lower().replace(" ", "").replace("-", "")
        known = [gpu for gpu in GPUS.values() if gpu.name.split("-")[0] in told]
        if known:
            return known[0].peak_tera * 1e12
    return measured_rate(device)


def measured_rate(device: torch.device, size: int = 1024) -> float:
    """Operations per second of a float32 matrix product, the best of five."""
    matrix = torch.randn(size, size, device=device)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds)
