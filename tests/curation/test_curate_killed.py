"""Killed at any moment, a curation that is begun again gives the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gemvlm

HERE = Path(__file__).parent


def tries(mode: str, folder: Path, number: int) -> list[dict[str, str]]:
    path = os.pathsep.join([str(Path(gemvlm.__file__).parents[1]), str(HERE)])
    command = [sys.executable, str(HERE / "curate_toy.py"), mode, str(folder), str(number)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def same(found: list[dict[str, str]]) -> None:
    whole, *others = found
    assert others and {entry["killed"]: entry["digest"] for entry in others} == {
        entry["killed"]: whole["digest"] for entry in others
    }


def test_killed_at_writes_fsyncs_and_renames(tmp_path: Path) -> None:
    """Every 13th operation; 13 and the 4 operations of a file have no common divisor, so all four kinds are met."""
    found = tries("operations", tmp_path, 13)
    assert len(found) > 15
    same(found)
    assert not list(tmp_path.glob("*.work")), "the work folder goes with the end of the work"


@pytest.mark.slow
def test_killed_at_every_operation(tmp_path: Path) -> None:
    same(tries("operations", tmp_path, 1))


@pytest.mark.slow
def test_killed_at_random_times_with_worker_processes(tmp_path: Path) -> None:
    same(tries("moments", tmp_path, 8))
