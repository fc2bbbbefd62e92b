"""The commands that point, box, plan and locate, told apart from the model by a stand-in; doctor and demo on nano."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tyro import cli

import gemvlm.inference
from gemvlm.camera import Camera, View
from gemvlm.commands import models, using
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.depth_map import DepthMap
from gemvlm.inference import Location, Plan
from gemvlm.sample import Box, Point


class Pieces(list[str]):
    finished = False


class Model:
    """Stands in for a pipeline and remembers what it was asked."""

    coordinates = CoordinateFormat()

    def __init__(self, found: bool) -> None:
        self.found = found
        self.asked: list[object] = []

    def point(self, image: Path, expression: str) -> Point | None:
        return Point(0.25, 0.75) if self.found else None

    def points(self, image: Path, expression: str) -> tuple[Point, ...]:
        return (Point(0.25, 0.75), Point(0.5, 0.5)) if self.found else ()

    def box(self, image: Path, expression: str) -> Box | None:
        return Box(0.1, 0.2, 0.3, 0.4) if self.found else None

    def plan(self, images: list[str], goal: str) -> Plan:
        self.asked.append((images, goal))
        return Plan(("remove the mug", "remove the cup") if self.found else (), "mug, cup" if self.found else "nothing")

    def ask_stream(self, images: list[str], question: str, **options: object) -> Pieces:
        self.asked.append((len(images), question))
        return Pieces(["at ", "(250, 750)"])

    def locate(self, image: np.ndarray, expression: str, view: Camera | View, **options: object) -> Location:
        self.asked.append((view, options))
        if not self.found:
            return Location(expression, "no idea", missing="the reply holds no point")
        depth = DepthMap.from_values(np.full(image.shape[:2], 0.5))
        place = (0.1, -0.2, 0.5)
        return Location(expression, "(250, 750)", Point(0.25, 0.75), place, place, 0.01, 9, depth, "generated")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "desk.png")
    return tmp_path / "desk.png"


def stand_in(monkeypatch: pytest.MonkeyPatch, found: bool = True) -> Model:
    model = Model(found)
    monkeypatch.setattr(gemvlm.inference, "load", lambda name, device, dtype=None: model)
    return model


def test_point_prints_and_draws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], picture: Path, tmp_path: Path
) -> None:
    stand_in(monkeypatch)
    out = tmp_path / "marked.png"
    cli(using.point, args=["nano", str(picture), "red mug", "--out", str(out)])
    assert capsys.readouterr().out.splitlines() == ["point  x 0.250  y 0.750", str(out)]
    with Image.open(out) as drawn:
        assert np.asarray(drawn).std() > 0
    cli(using.point, args=["nano", str(picture), "red mug", "--all"])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_box_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], picture: Path) -> None:
    stand_in(monkeypatch)
    cli(using.box, args=["nano", str(picture), "red mug"])
    assert capsys.readouterr().out == "box    x 0.100 to 0.300  y 0.200 to 0.400\n"


@pytest.mark.parametrize("command", [using.point, using.box, using.locate])
def test_nothing_found_is_status_1_and_a_line(
    command: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], picture: Path
) -> None:
    stand_in(monkeypatch, found=False)
    camera = ["--fov", "50"] if command is using.locate else []
    with pytest.raises(SystemExit) as done:
        cli(command, args=["nano", str(picture), "red mug", *camera])
    captured = capsys.readouterr()
    assert done.value.code == 1 and captured.out == "" and "the reply holds no p" in captured.err


def test_plan_numbers_its_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], picture: Path
) -> None:
    model = stand_in(monkeypatch)
    cli(using.plan, args=["nano", str(picture), str(picture), "lift the tray"])
    assert capsys.readouterr().out == "1. remove the mug\n2. remove the cup\n"
    assert model.asked == [([str(picture)] * 2, "lift the tray")]
    stand_in(monkeypatch, found=False)
    cli(using.plan, args=["nano", str(picture), "lift the tray"])
    assert capsys.readouterr().out == "nothing\n"
    with pytest.raises(ValueError, match="then the goal"):
        using.plan("nano", ("lift the tray",))


def test_ask_streams_and_shows_so_many_frames_of_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], picture: Path
) -> None:
    for number in range(5):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture.with_name(f"desk-{number}.png"))
    model = stand_in(monkeypatch)
    cli(models.ask, args=["nano", str(picture.parent), str(picture), "What?", "--stream", "--frames", "3"])
    told = capsys.readouterr()
    assert told.out == "at (250, 750)\npoint  x 0.250  y 0.750\n" and model.asked == [(4, "What?")]
    assert "cut after 256 tokens" in told.err


def test_a_question_may_be_longer_than_a_name_of_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], picture: Path
) -> None:
    model = stand_in(monkeypatch)
    cli(models.ask, args=["nano", str(picture), "What? " * 100, "--stream"])
    assert model.asked == [(1, "What? " * 100)]


def test_locate_prints_places_and_writes_a_cloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], picture: Path, tmp_path: Path
) -> None:
    model = stand_in(monkeypatch)
    np.savetxt(tmp_path / "k.txt", [[30, 0, 15], [0, 31, 11], [0, 0, 1]])
    np.savetxt(tmp_path / "pose.txt", np.eye(4))
    files = ["--intrinsics", str(tmp_path / "k.txt"), "--pose", str(tmp_path / "pose.txt")]
    cli(using.locate, args=["nano", str(picture), "red mug", *files, "--cloud", str(tmp_path / "desk.ply")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "point   x 0.250  y 0.750"
    assert lines[1].startswith("camera  x +0.100  y -0.200  z +0.500  m") and lines[2].startswith("world   x +0.100")
    assert lines[3] == "depth   generated, median of 9 pixels, ± 0.010 m"
    assert (tmp_path / "desk.ply").read_bytes().startswith(b"ply\n")
    view, options = model.asked[0]  # type: ignore[misc]
    assert view.camera == Camera(32, 24, 30.0, 31.0, 15.5, 11.5) and options["depth"] is None


def test_locate_reads_measured_depth(monkeypatch: pytest.MonkeyPatch, picture: Path, tmp_path: Path) -> None:
    model = stand_in(monkeypatch)
    DepthMap.from_values(np.full((24, 32), 0.75)).save(tmp_path / "d.png")
    cli(using.locate, args=["nano", str(picture), "mug", "--fov", "50", "--fit", str(tmp_path / "d.png")])
    view, options = model.asked[0]  # type: ignore[misc]
    assert view == Camera.from_fov(32, 24, 50.0) and options["fit"].values[0, 0] == 0.75


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give either --intrinsics FILE or --fov"),
        (["--fov", "0"], "between 0 and 180"),
        (["--fov", "50", "--depth", "a.npz", "--fit", "b.npz"], "give one of them"),
        (["--fov", "50", "--support", "0.7", "--fit", "b.npz"], "give one of them"),
        (["--fov", "50", "--support", "0.7"], "needs the camera's pose; add --pose FILE"),
        (["--intrinsics", "K"], "not a table of numbers|expected 3 x 3"),
        (["--fov", "50", "--pose", "K"], "expected 4 x 4"),
    ],
)
def test_locate_needs_one_camera_and_one_depth(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, picture: Path, tmp_path: Path
) -> None:
    stand_in(monkeypatch)
    (tmp_path / "K").write_text("1 2\n3 4\n")
    filled = [str(tmp_path / "K") if word == "K" else word for word in options]
    with pytest.raises(ValueError, match=words):
        cli(using.locate, args=["nano", str(picture), "mug", *filled])


def test_the_doctor_finds_this_machine_and_a_missing_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    using.doctor("nano", device="cpu")
    told = capsys.readouterr().out
    assert "GiB of memory" in told and "uses cpu" in told and "shipped checkpoint" in told
    assert "answered and painted in" in told
    with pytest.raises(SystemExit) as done:
        using.doctor(str(tmp_path / "none"), device="cpu")
    assert done.value.code == 1 and "NO  self-test" in capsys.readouterr().out


def test_a_missing_extra_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from gemvlm.recipes import doctor

    declared = [
        "numpy>=2",
        'numpy>=1; extra == "web"',
        'nothing-such>=1; extra == "serve"',
        'numpy>=999; extra == "onnx"',
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: declared)
    lines = {line.name: line for line in doctor._extras()}
    assert lines["[web]"].well and lines["[web]"].found.startswith("numpy ")
    assert lines["[serve]"].well is None and lines["[serve]"].remedy == "pip install 'gemvlm[serve]'"
    assert lines["[serve]"].found == "no nothing-such" and "instead of >=999" in lines["[onnx]"].found


def test_the_demo_is_a_page_with_clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gemvlm.recipes import demo

    monkeypatch.setattr(demo, "examples", lambda all=demo.examples: all()[:1])
    page = demo.demonstrate("nano", tmp_path / "demo", device="cpu")
    text = page.read_text()
    assert "red arch" in text and "data:image/png" in text and "Traceback" not in text
    assert (tmp_path / "demo" / "table-1.ply").stat().st_size > 100_000
