"""Named tensors ⇄ safetensors files, the same files whatever number of processes writes or reads them.

A tensor lies whole in one file, in the layout of Hugging Face: `STEM.safetensors`, or numbered files and an index. Each
process gathers, then writes, a share of the files; reading, it takes only its own rows. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gemvlm.shards import files
from gemvlm.training.parallel import Processes, local, own_rows, whole_tensor

LARGEST_FILE = 5 * 10**9
"""Bytes; also the most that a process holds in its own memory while it writes."""

SHOWN = 5


def size_of(tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> int:
    """Bytes of the whole tensors, on all processes together, written as `dtype` (None: as they are)."""
    return sum(tensor.numel() * (dtype or tensor.dtype).itemsize for tensor in tensors.values())


def write_tensors(
    folder: Path, stem: str, tensors: Mapping[str, Tensor], processes: Processes, dtype: torch.dtype | None = None
) -> None:
    """Every process calls it with its parts of the same tensors. OSError or SafetensorError where a write fails.

    A process that fails goes on gathering, so that the others are not left waiting; it raises at the end.
    """
    plan = _plan(tensors, processes.world, dtype)
    names = [f"{stem}.safetensors"]
    if len(plan) > 1:
        names = [f"{stem}-{number:05d}-of-{len(plan):05d}.safetensors" for number in range(1, len(plan) + 1)]
    failure: Exception | None = None
    for first in range(0, len(plan), processes.world):
        mine: dict[str, Tensor] = {}
        for number in range(first, min(first + processes.world, len(plan))):
            for name in plan[number]:
                whole = whole_tensor(tensors[name].detach())
                if number % processes.world == processes.rank:
                    mine[name] = whole.to("cpu", dtype or whole.dtype).contiguous()
        if mine and failure is None:
            try:
                path = folder / names[first + processes.rank]
                save_file(mine, path, metadata={"format": "pt"})
                files.fsync(path)
            except (OSError, SafetensorError) as error:
                failure = error
    if failure is not None:
        raise failure
    if len(plan) > 1 and processes.is_main:
        where = {name: names[number] for number, group in enumerate(plan) for name in group}
        index = {"metadata": {"total_size": size_of(tensors, dtype)}, "weight_map": where}
        files.put(folder / f"{stem}.safetensors.index.json", (json.dumps(index, indent=1) + "\n").encode())


def _plan(tensors: Mapping[str, Tensor], world: int, dtype: torch.dtype | None) -> list[list[str]]:
    """Names file by file: of like size, at least one file for each process where there are tensors enough."""
    limit = min(LARGEST_FILE, -(-size_of(tensors, dtype) // world))
    plan: list[list[str]] = [[]]
    room = limit
    for name, tensor in tensors.items():
        size = size_of({name: tensor}, dtype)
        if plan[-1] and size > room:
            plan.append([])
            room = limit
        plan[-1].append(name)
        room -= size
    return plan


class TensorFiles:
    """The tensors of `stem` in a folder, opened for reading; `names` in the order of the files."""

    def __init__(self, folder: Path, stem: str):
        self.folder, self.stem = folder, stem
        self._stack = ExitStack()
        self._of: dict[str, Any] = {}

    def __enter__(self) -> TensorFiles:
        index = self.folder / f"{self.stem}.safetensors.index.json"
        names = [f"{self.stem}.safetensors"]
        try:
            if index.is_file():
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            for name in names:
                file: Any = self._stack.enter_context(safe_open(self.folder / Path(name).name, framework="pt"))
                self._of |= dict.fromkeys(file.keys(), file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            self._stack.close()
            raise ValueError(
                f"{self.folder}: {self.stem} is not readable ({error}); remove this checkpoint, and the run goes on "
                "from the one before"
            ) from None
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._of[name].get_slice(name).get_shape())

    def read(self, name: str, like: Tensor) -> Tensor:
        """A tensor laid out, and placed, as `like` if it has its shape; else whole."""
        if self.shape(name) != tuple(like.shape):
            return self._of[name].get_tensor(name)
        placed = torch.empty_like(like, dtype=self._dtype(name))
        self._copy(name, placed)
        return placed

    def fill(self, wanted: Mapping[str, Tensor]) -> None:
        """Copies every tensor. ValueError, with counts and names, unless names and shapes agree on both sides."""
        missing = [name for name in wanted if name not in self._of]
        unexpected = [name for name in self._of if name not in wanted]
        shared = [name for name in wanted if name in self._of]
        shaped = [
            f"{name} {self.shape(name)} for {tuple(wanted[name].shape)}"
            for name in shared
            if self.shape(name) != tuple(wanted[name].shape)
        ]
        problems = [
            f"{len(found)} {what} ({', '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''})"
            for what, found in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shaped))
            if found
        ]
        if problems:
            raise ValueError(
                f"{self.folder}, {self.stem}: {len(shared) - len(shaped)} of {len(wanted)} tensors fit; "
                f"{'; '.join(problems)}; the checkpoint is of another model: train into another folder"
            )
        for name, tensor in wanted.items():
            self._copy(name, tensor)

    @torch.no_grad()
    def _copy(self, name: str, target: Tensor) -> None:
        if target.ndim == 0:
            target.copy_(self._of[name].get_tensor(name))
            return
        rows = own_rows(target)
        if rows.start < rows.stop:
            local(target).copy_(self._of[name].get_slice(name)[rows.start : rows.stop])

    def _dtype(self, name: str) -> torch.dtype:
        return self._of[name].get_slice(name)[:0].dtype if self.shape(name) else self._of[name].get_tensor(name).dtype
