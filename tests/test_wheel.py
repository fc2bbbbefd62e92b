"""What is shipped: the wheel, built from the sources, installed in a new environment, used from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "gemvlm"

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path) -> str:
    hidden = ("PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pip", reason="builds with pip")
    pytest.importorskip("hatchling", reason="builds without a network: pip install hatchling")
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "--no-build-isolation", "--wheel-dir", out, cwd=out)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a new environment that holds the wheel and sees what is installed here.

    A plain path in a .pth file: an editable install of this checkout is not seen through it.
    """
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    binaries = place / ("Scripts" if os.name == "nt" else "bin")
    python = binaries / ("python.exe" if os.name == "nt" else "python")
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip())
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own / "installed_here.pth").write_text("\n".join(sorted(here)) + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=place)
    return binaries


def test_all_of_the_package_and_nothing_else_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    sources = {name for name in sources if "__pycache__" not in name}
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == sources
    for needed in (
        "gemvlm/checkpoints/nano/model.safetensors",
        "gemvlm/checkpoints/nano/gem.json",
        "gemvlm/inference/pictures/table-1.jpg",
        "gemvlm/figure/report.css",
    ):
        assert needed in packed
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/", "client/")) for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < 40 * 2**20


def test_it_answers_from_any_folder(installed: Path, tmp_path: Path) -> None:
    python, command = installed / "python", installed / "gemvlm"
    place = run(python, "-c", "import gemvlm; print(gemvlm.__file__)", cwd=tmp_path).strip()
    assert Path(place).is_relative_to(installed.parent), "the checkout's own sources were imported"
    assert "gemvlm COMMAND" in run(command, "--help", cwd=tmp_path)
    assert run(command, "--version", cwd=tmp_path).startswith("gemvlm ")
    picture = Path(place).parent / "inference" / "pictures" / "table-1.jpg"
    answer = run(command, "ask", "nano", picture, "Describe the scene.", "--device", "cpu", cwd=tmp_path)
    assert answer.strip() and "point  x " in answer
