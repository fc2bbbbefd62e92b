"""LIBERO's packages, loaded so that they ask nothing, download nothing, log nothing and need no graphics card.

Facts of hf-libero 0.1.4 and robosuite 1.4.0 that this file works around: `libero.libero` asks on standard input unless
a `config.yaml` stands in `LIBERO_CONFIG_PATH`, yet reads no asset folder from it; robosuite demands EGL at import
unless its switches say otherwise, and writes a log file; the initial states are pickles, which are read here with
nothing allowed but arrays.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float64

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
PACKAGES = ("hf-libero", "robosuite", "bddl", "mujoco")
NEEDED = "LIBERO is not installed: run `make worlds-libero`"
LARGEST_STATES = 8 * 2**20
"""Bytes of a file of initial states; the largest official one has about 50 kB."""


@contextmanager
def _environment(**changes: str) -> Iterator[None]:
    """Environment variables as given, and as they were afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@cache
def _load() -> ModuleType:
    """The module `libero.libero.envs.env_wrapper`. ImportError names the make target."""
    try:
        import mujoco  # noqa: F401  before robosuite, so that our choice of OpenGL stays ours
    except ImportError as error:
        raise ImportError(f"{NEEDED} ({error})") from error
    spec = importlib.util.find_spec("libero")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(NEEDED)
    root = Path(next(iter(spec.submodule_search_locations))) / "libero"
    _quieten_robosuite()
    with tempfile.TemporaryDirectory() as folder:
        lines = {
            "benchmark_root": root,
            "bddl_files": root / "bddl_files",
            "init_states": root / "init_files",
            "datasets": root / "datasets",
            "assets": root / "assets",
        }
        config = Path(folder) / "config.yaml"
        config.write_text("".join(f'{key}: "{value.as_posix()}"\n' for key, value in lines.items()))
        with _environment(LIBERO_CONFIG_PATH=folder, MUJOCO_GL="disabled"):
            try:
                from libero.libero.envs import env_wrapper
            except ImportError as error:
                raise ImportError(f"{NEEDED} ({error})") from error
    return env_wrapper


def _quieten_robosuite() -> None:
    """Loads robosuite's switches before robosuite itself, which acts upon them at import, and turns off what we don't
    use: its renderer, its log file, and its advice to write a private file of switches."""
    spec = importlib.util.find_spec("robosuite")
    if "robosuite" in sys.modules or spec is None or not spec.submodule_search_locations:
        return
    file = Path(next(iter(spec.submodule_search_locations))) / "macros.py"
    switches = importlib.util.spec_from_file_location("robosuite.macros", file)
    assert switches is not None and switches.loader is not None
    macros = importlib.util.module_from_spec(switches)
    switches.loader.exec_module(macros)
    vars(macros).update(MUJOCO_GPU_RENDERING=False, CONSOLE_LOGGING_LEVEL=None, FILE_LOGGING_LEVEL=None)
    sys.modules["robosuite.macros"] = macros
    sys.modules.setdefault("robosuite.macros_private", ModuleType("robosuite.macros_private"))


def open_task(suite: str, index: int, assets: Path | str) -> Any:
    """robosuite's environment of a task, without cameras. `assets` is the folder with LIBERO's meshes and textures."""
    import libero.libero as settings

    wrapper = _load()
    folder = Path(assets).resolve()
    if not (folder / "scenes").is_dir():
        raise ValueError(
            f"{folder}: no folder of LIBERO assets: it has no subfolder 'scenes'; give libero/libero/assets"
        )
    settings._assets_path_cache = str(folder)
    file = _root() / "bddl_files" / suite / f"{task_names(suite)[index]}.bddl"
    return wrapper.ControlEnv(
        bddl_file_name=str(file), use_camera_obs=False, has_offscreen_renderer=False, hard_reset=False, horizon=10_000
    )


@cache
def task_names(suite: str) -> tuple[str, ...]:
    """The ten tasks of a suite in the official order. ValueError for an unknown suite."""
    if suite not in SUITES:
        raise ValueError(f"LIBERO has no suite {suite!r} of ten tasks; choose from {SUITES}")
    _load()
    from libero.libero.benchmark.libero_suite_task_map import libero_task_map

    return tuple(libero_task_map[suite])


def initial_states(suite: str, index: int) -> Float64[np.ndarray, "states S"]:
    """The official initial states of a task, one per row: time, positions, velocities."""
    import torch
    from numpy._core.multiarray import _reconstruct

    file = _root() / "init_files" / suite / f"{task_names(suite)[index]}.pruned_init"
    if not file.is_file() or file.stat().st_size > LARGEST_STATES:
        raise ValueError(f"{file}: no file of initial states, or not one of LIBERO's; reinstall hf-libero")
    allowed = (_reconstruct, "numpy.core.multiarray._reconstruct")
    arrays: list[Any] = [allowed, np.ndarray, np.dtype, np.dtypes.Float64DType]
    with torch.serialization.safe_globals(arrays):
        states = np.asarray(torch.load(file, weights_only=True))
    if states.ndim != 2 or not np.isfinite(states).all():
        raise ValueError(f"{file}: expected a table of finite states, found {states.shape}; reinstall hf-libero")
    return states


def versions() -> str:
    """The packages that make a picture, with their versions: part of every sample's provenance."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)


def stand_ins(assets: Path | str) -> int:
    """How many files of an asset folder its MANIFEST.tsv marks as stand-ins for LIBERO's own; 0 without a manifest."""
    manifest = Path(assets) / "MANIFEST.tsv"
    if not manifest.is_file():
        return 0
    return sum("\tstandin\t" in line for line in manifest.read_text(encoding="utf-8").splitlines())


def _root() -> Path:
    return Path(str(_load().__file__)).parents[1]
