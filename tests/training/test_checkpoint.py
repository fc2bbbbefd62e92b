"""Checkpoints are whole or absent."""

from __future__ import annotations

from pathlib import Path

from gemvlm.training.checkpoint import STATE_FILE, latest_checkpoint, prune


def make(folder: Path, *names: str, state: bool = True) -> None:
    for name in names:
        (folder / name).mkdir()
        if state:
            (folder / name / STATE_FILE).touch()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path / "none") is None
    make(tmp_path, "step-900", "step-1000", "final")
    assert latest_checkpoint(tmp_path) == tmp_path / "step-1000"


def test_drafts_and_folders_without_a_state_are_not_resumed(tmp_path: Path) -> None:
    make(tmp_path, "step-10", "step-30.draft")
    make(tmp_path, "step-20", state=False)
    assert latest_checkpoint(tmp_path) == tmp_path / "step-10"


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    """C3: the release keeps every one."""
    make(tmp_path, "step-5", "step-90", "step-100", "step-20", "final")
    prune(tmp_path, 2)
    assert names(tmp_path) == ["final", "step-100", "step-90"]


def test_a_draft_does_not_count_as_a_kept_checkpoint(tmp_path: Path) -> None:
    make(tmp_path, "step-10", "step-15", "step-20.draft")
    prune(tmp_path, 1)
    assert names(tmp_path) == ["step-15"]
