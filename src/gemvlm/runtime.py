"""The only file that asks the environment: rank, device, precision, threads, keys, versions and the log."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Runtime:
    """Where this process runs: its rank among `world` processes, its device, its precision of matrix products.

    `local_world` is how many of the processes run on this machine.
    """

    rank: int
    world: int
    device: torch.device
    precision: Precision
    local_world: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Matrix products in the run's precision; weights, flow states and losses stay in float32."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def detect(device: str | None = None, precision: Precision = "float32", threads: int | None = None) -> Runtime:
    """Rank and world as the launcher's variables say; the device is the given one, else CUDA, else MPS, else CPU.

    `torchrun` sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Of processes that each
    see several GPUs, each takes the one of its LOCAL_RANK.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    return Runtime(
        rank=int(os.environ.get("RANK", "0")),
        world=int(os.environ.get("WORLD_SIZE", "1")),
        device=default_device(device),
        precision=precision,
        local_world=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )


def default_device(name: str | None = None) -> torch.device:
    """The named device, or the best that is there; "cuda" is the GPU of this process's LOCAL_RANK."""
    if name not in (None, "cuda"):
        try:
            return torch.device(name)
        except RuntimeError:
            raise ValueError(f"device {name!r} is unknown; write cpu, cuda, cuda:1 or mps") from None
    if name == "cuda" or torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def memory_bytes() -> tuple[int, int]:
    """Main memory of this machine, or of its container, and how much of it can be had; 0 where that can't be known."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows, and not all of it on macOS
        return 0, 0
    table, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    said = re.search(r"MemAvailable:\s+(\d+) kB", table.read_text()) if table.is_file() else None
    free = int(said[1]) * 1024 if said else free
    allowed = limit.read_text().strip() if limit.is_file() else ""
    total = min(total, int(allowed)) if allowed.isdecimal() else total
    return total, min(free, total)


def secret(name: str) -> str | None:
    """A key from the environment variable of that name, None if it is not set: to be sent, and never to be written."""
    return os.environ.get(name) or None


def versions() -> dict[str, str]:
    """What a checkpoint or a score should say about the code and the libraries that made it."""
    names = ("gemvlm", "torch", "transformers", "diffusers", "numpy", "mujoco")
    found = {name: _version(name) for name in names}
    return {**{k: v for k, v in found.items() if v}, "python": platform.python_version(), "commit": _commit()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit of the source tree, "+" appended if it has uncommitted changes; "" for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


@contextlib.contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Initial weights drawn inside are a function of `seed` only; the global generator is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def get_log() -> logging.Logger:
    """The package's log: one line per event, on standard error; processes other than the first only warn."""
    log = logging.getLogger("gemvlm")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
        log.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
        log.propagate = False
    return log
