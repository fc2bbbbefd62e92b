"""What a robot's computer needs: the robot room and the data rooms come in without anything optional."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = (
    "h5py",
    "av",
    "pyarrow",
    "scipy",
    "mujoco",
    "metaworld",
    "libero",
    "ray",
    "fsspec.implementations",
    "lerobot",
)
PROGRAM = f"""
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {BLOCKED!r} or name.startswith(tuple(b + "." for b in {BLOCKED!r})):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
import gemvlm.robot
for module in pkgutil.walk_packages(gemvlm.robot.__path__, "gemvlm.robot."):
    importlib.import_module(module.name)
assert "torch" not in sys.modules and "transformers" not in sys.modules, "a robot needs neither"
for name in ("episodes", "actions"):
    package = importlib.import_module("gemvlm.data." + name)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""


def test_every_module_comes_in_without_optional_packages() -> None:
    """A8: nothing that is imported is absent; and what runs beside a robot needs no torch."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
