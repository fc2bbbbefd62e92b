"""The recipe `debug`, carried out once for all tests that need a model which somebody trained."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def debug_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: data, tokenizer, metrics, previews, checkpoints."""
    from gemvlm.recipes.run import train_recipe
    from gemvlm.training.loop import Run

    folder = tmp_path_factory.mktemp("runs") / "debug"
    assert train_recipe("debug", folder, device="cpu", run=Run(folder, show_progress=False))
    return folder
