"""The client package of this repository, the toy policy, and a server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

sys.path[:0] = [str(HERE), str(ROOT / "client" / "src")]


@pytest.fixture(scope="session")
def server_process() -> Iterator[tuple[str, int]]:
    """The address and the process id of a server of the toy policy."""
    pytest.importorskip("websockets", reason="needs gemvlm[serve]")
    paths = os.pathsep.join([str(ROOT / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(HERE / "servo_policy.py")],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("ws://"), "the server did not start"
    yield url, process.pid
    process.terminate()
    assert process.wait(timeout=20) == 0, "the server did not end well on SIGTERM"
