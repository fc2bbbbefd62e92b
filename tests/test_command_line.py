"""`gemvlm` on the command line, in processes of its own and in this one."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gemvlm.inference
from gemvlm.__main__ import COMMANDS, HELP, main
from gemvlm.commands.vla import HELP as VLA_HELP
from gemvlm.depth_map import DepthMap
from gemvlm.flow import Steps
from gemvlm.inference import Answer, DepthPrediction
from gemvlm.sample import Box, Point

SOURCE = Path(gemvlm.__file__).parents[1]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "gemvlm", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_help_answers_in_less_than_half_a_second() -> None:
    """Processor time, which on an idle machine is all it takes; other work on the machine must not fail the test."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run("--help").stdout == HELP
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("words", ["import gemvlm", "from gemvlm.__main__ import main; main(['--help'])"])
def test_help_and_the_bare_package_import_nothing_heavy(words: str) -> None:
    heavy = "{'torch', 'transformers', 'diffusers', 'numpy', 'matplotlib', 'mujoco', 'PIL'}"
    code = f"{words}; import sys; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_help_names_every_command() -> None:
    plain = [name for name in COMMANDS if not name.startswith("vla ")]
    assert all(f"\n  {name} " in HELP for name in plain) and "\n  vla " in HELP
    robots = [name.removeprefix("vla ") for name in COMMANDS if name not in plain]
    assert robots and all(f"\n  {name} " in VLA_HELP for name in robots)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([name, "--help"])
    assert done.value.code == 0
    assert f"gemvlm {name}" in capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("gemvlm: ") and captured.err.count("\n") == 1
    return captured.err


def test_errors_of_the_user_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.touch()
    assert "unknown command 'aks'; there are ask, " in refused(capsys, "aks")
    assert "then the question" in refused(capsys, "ask", "nano", str(image), " ")
    assert "then the question" in refused(capsys, "ask", "nano", str(image), str(image))
    assert "neither a folder nor a shipped checkpoint" in refused(capsys, "ask", str(tmp_path / "no"), "a.png", "What?")
    assert "at least one image" in refused(capsys, "depth", "nano", "--out", str(tmp_path))
    assert "the same name" in refused(capsys, "depth", "nano", "a/x.png", "b/x.jpg", "--out", str(tmp_path))


def test_benchmarks_are_parted_by_commas(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["evaluate", "random", "--benchmark", "sat,nothing", "--benchmark", "what", "--out", str(tmp_path)]
    assert "no benchmark nothing, what; there are blink, " in refused(capsys, *words)


@pytest.mark.parametrize("name", ["sat", "rgbd_bench"])
def test_a_benchmark_without_its_place_is_refused(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "--data" in refused(capsys, "evaluate", "random", "--benchmark", name, "--out", str(tmp_path))


def test_an_unknown_recipe_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    error = refused(capsys, "train", "gem_giga", "--out", str(tmp_path))
    assert "unknown recipe 'gem_giga'; there are " in error and "debug" in error


def test_a_run_is_not_gone_on_with_by_accident(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "step-100").mkdir()
    assert "add --resume" in refused(capsys, "train", "debug", "--out", str(tmp_path))


class Model:
    """Stands in for a pipeline and remembers what it was asked."""

    def __init__(self, metric: bool) -> None:
        self.metric = metric
        self.asked: list[object] = []

    def ask(self, images: list[str], question: str, **options: object) -> Answer:
        self.asked.append((images, question, options))
        return Answer("a red mug (250, 750)", (Point(0.25, 0.75),), (Box(0.1, 0.2, 0.3, 0.4),))

    def depth_batch(self, images: list[Path], **options: object) -> list[DepthPrediction]:
        self.asked.append((images, options))
        values = np.linspace(0.5, 1, 64, dtype=np.float32).reshape(8, 8)
        depth = DepthMap.from_values(values, "metric_z" if self.metric else "affine_log_depth")
        return [DepthPrediction(depth, np.ones((8, 8), np.float32), np.zeros((8, 8, 3), np.uint8)) for _ in images]


def stand_in(monkeypatch: pytest.MonkeyPatch, metric: bool = True) -> Model:
    model = Model(metric)
    monkeypatch.setattr(gemvlm.inference, "load", lambda name, device, dtype=None: model)
    return model


def test_ask_prints_the_answer_and_its_places(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = stand_in(monkeypatch)
    assert main(["ask", "nano", "a.png", "b.png", "Where is the mug?", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["a red mug (250, 750)", "point  x 0.250  y 0.750", "box    x 0.100 to 0.300  y 0.200 to 0.400"]
    images, question, options = model.asked[0]  # type: ignore[misc]
    assert images == ["a.png", "b.png"] and question == "Where is the mug?" and options["seed"] == 3


def test_depth_writes_colours_millimetres_and_floats(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = stand_in(monkeypatch)
    out = tmp_path / "new"
    words = ["depth", "nano", "x/desk.png", "--out", str(out), "--steps", "5", "--guidance", "2", "--seed", "7"]
    assert main(words) == 0
    asked = {"steps": Steps(5), "guidance": 2.0, "seed": 7, "ensemble": 1, "combine": "median"}
    assert model.asked[0][1] == asked  # type: ignore[index]
    there = ["desk-depth.json", "desk-depth.npz", "desk-depth.png", "desk-view.png"]
    assert sorted(path.name for path in out.iterdir()) == there
    assert len(capsys.readouterr().out.splitlines()) == 3
    exact, rounded = DepthMap.from_file(out / "desk-depth.npz"), DepthMap.from_file(out / "desk-depth.png")
    np.testing.assert_allclose(rounded.values, exact.values, atol=0.0006)
    with Image.open(out / "desk-view.png") as view:
        assert view.mode == "RGB" and view.size == (8, 8)


def test_depth_without_unit_is_not_written_in_millimetres(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stand_in(monkeypatch, metric=False)
    assert main(["depth", "nano", "desk.png", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["desk-depth.npz", "desk-view.png"]
    capsys.readouterr()
    assert "would be a lie" in refused(capsys, "depth", "nano", "desk.png", "--out", str(tmp_path), "--format", "png")


def test_a_missing_package_is_one_line_with_its_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["curate", "tabletop_100k", "--out", str(tmp_path / "set"), "--engine", "ray"]) == 2
    told = capsys.readouterr().err
    assert "pip install 'gemvlm[curate]'" in told and told.count("\n") == 1
