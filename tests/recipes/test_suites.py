"""Local suites: made once and kept, the same for everyone, shifted where they say so, real frames by time or place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")

from gemvlm.curation.questions import CORE_FAMILIES
from gemvlm.depth_map import DepthMap, Encoding
from gemvlm.evaluation.benchmark import Convention
from gemvlm.evaluation.sample_benchmark import SampleBenchmark
from gemvlm.inference import DepthPrediction
from gemvlm.recipes import held_out
from gemvlm.recipes.suites import SETS, SUITES, open_suite, suite_depth
from gemvlm.worlds.tabletop import CATEGORIES, NEW_CATEGORIES

SEVEN_SCENES = Path(__file__).parents[2] / "../shared/rgbd-7scenes"
FAMILIES = ("closer", "point", "colour", "count", "can_lift")
SMALL = {"scenes": 3, "per_family": 4, "families": FAMILIES}


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "available_cores", lambda: 1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SampleBenchmark]:
    place = tmp_path_factory.mktemp("suites")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "available_cores", lambda: 1)
        return place, open_suite("tabletop_bench", str(place), **SMALL)


class Painter:
    """Paints the same depth whatever it sees."""

    @property
    def encoding(self) -> Encoding:
        return Encoding("log", 0.3, 4.0)

    def depth_batch(
        self, images: list, *, steps: int, guidance: float, seed: int, unconditional: bool = False
    ) -> list[DepthPrediction]:
        shape = images[0].shape[:2]
        flat = DepthMap.from_values(np.full(shape, 9.0, np.float32))
        return [DepthPrediction(flat, np.ones(shape, np.float32), image) for image in images]


def test_a_kept_set_is_read_back_as_it_was_made(kept: tuple[Path, SampleBenchmark]) -> None:
    place, made = kept
    again = open_suite("tabletop_bench", str(place), **SMALL)
    anew = open_suite("tabletop_bench", **SMALL)
    for other in (again, anew):
        assert [(i.id, i.prompt, i.truth) for i in other.items()] == [(i.id, i.prompt, i.truth) for i in made.items()]
        assert other.blind() == made.blind()
    assert {item.meta["family"] for item in made.items()} <= set(FAMILIES)
    assert all(int(item.scene.split("-")[1]) >= 2_000_000 for item in made.items())
    with pytest.raises(ValueError, match="other settings"):
        open_suite("tabletop_bench", str(place), scenes=4, per_family=4, families=FAMILIES)


def test_the_oracle_is_right_about_every_question(kept: tuple[Path, SampleBenchmark]) -> None:
    _, made = kept
    for convention in (Convention(), Convention("pixel", "yx")):
        suite = made.written_for(convention)
        scores = [suite.score(item, suite.oracle(item, convention), convention) for item in suite.items()]
        assert suite.summary(suite.items(), scores)["overall"] == 1


def test_depth_is_scored_beside_blind_baselines(kept: tuple[Path, SampleBenchmark]) -> None:
    report = suite_depth(kept[1], Painter(), steps=1)
    assert report.images == 6
    assert report.mean("constant", "all", "metric").mean < report.mean("model", "all", "metric").mean
    assert report.mean("support plane", "all", "aligned").mean < report.mean("model", "all", "aligned").mean


def test_a_shifted_set_has_the_same_seeds_and_what_it_is_named_after() -> None:
    new = open_suite("tabletop_bench", protocol="new_objects+instructed", scenes=2, per_family=4, families=("point",))
    usual = open_suite("tabletop_bench", scenes=2, per_family=4, families=("point",))
    assert {item.scene for item in new.items()} == {item.scene for item in usual.items()}
    words = {word.strip(".") for item in new.items() for word in item.prompt.split()}
    assert words & set(NEW_CATEGORIES) and not words & set(CATEGORIES)
    assert new.items()[0].prompt.endswith("of the image's width and height.")


def test_shifts_do_not_overlap_with_what_is_trained_on() -> None:
    usual = SETS["in_distribution"]
    cameras, clutter = SETS["new_cameras"], SETS["clutter"]
    assert not set(cameras.fov_y_deg) & set(usual.fov_y_deg)
    assert cameras.elevation_deg[1] < usual.elevation_deg[0] and cameras.roll_deg[0] > usual.roll_deg[1]
    assert clutter.min_objects > usual.max_objects
    assert not set(SETS["new_objects"].categories) & set(usual.categories)
    assert not set(SETS["new_textures"].object_patterns) & set(usual.object_patterns)


def test_unknown_names_and_protocols_are_refused() -> None:
    assert set(SUITES) == {"tabletop_bench", "rgbd_bench"}
    with pytest.raises(ValueError, match="choose from tabletop_bench, rgbd_bench"):
        open_suite("tabletop")
    with pytest.raises(ValueError, match="new_cameras"):
        open_suite("tabletop_bench", protocol="new_walls")
    with pytest.raises(ValueError, match="'clutter@9' is unknown"):
        open_suite("tabletop_bench", protocol="clutter@9")
    assert set(CORE_FAMILIES) >= set(FAMILIES)


def frames(folder: Path, names: list[str], broken: str = "") -> None:
    """Frames in the layout of `rgbd_folder`: a slanted floor with a step; depth of `broken` is no picture."""
    from PIL import Image

    folder.mkdir(parents=True)
    rows = np.mgrid[:96, :128][0]
    for number, name in enumerate(names):
        z = 3.0 - rows / 60 + 0.02 * number
        z[40:70, 30 + number : 60 + number] -= 0.9
        Image.fromarray((z * 1000).astype(np.uint16)).save(folder / f"{name}.depth.png")
        Image.fromarray(np.full((96, 128, 3), 20 * number, np.uint8)).save(folder / f"{name}.color.jpg")
    if broken:
        (folder / f"{broken}.depth.png").write_bytes(b"nothing")
    (folder / "camera-intrinsics.txt").write_text("100 0 64\n0 100 48\n0 0 1\n")


def test_frames_of_one_place_are_parted_in_time_and_unusable_ones_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames(tmp_path / "room", [f"f{i}" for i in range(6)], broken="f4")
    with caplog.at_level("WARNING", logger="gemvlm"):
        suite = open_suite("rgbd_bench", str(tmp_path / "room"))
    assert [sample.id.rsplit("/", 1)[1] for sample in suite.samples] == ["f2", "f3", "f5"]
    assert [sample.id.rsplit("/", 1)[1] for sample in suite.fitted] == ["f0", "f1"]
    assert len({item.scene for item in suite.items()}) == 3
    scores = [suite.score(i, suite.oracle(i, Convention()), Convention()) for i in suite.items()]
    assert suite.summary(suite.items(), scores)["overall"] == 1
    json.dumps([item.meta for item in suite.items()])


def test_places_are_kept_whole_where_there_are_several(tmp_path: Path) -> None:
    for room in ("a", "b", "c", "d"):
        frames(tmp_path / room, ["f0", "f1"])
    suite = open_suite("rgbd_bench", str(tmp_path))
    tested, fitted = ({sample.scene for sample in part} for part in (suite.samples, suite.fitted))
    assert len(tested) == 3 and len(fitted) == 1 and not tested & fitted
    with pytest.raises(ValueError, match="frames keep their size"):
        open_suite("rgbd_bench", str(tmp_path), "rgbd_folder@128")


@pytest.mark.skipif(not SEVEN_SCENES.is_dir(), reason="7-Scenes frames are not there")
def test_real_frames_give_questions_that_the_oracle_answers(tmp_path: Path) -> None:
    for file in sorted(SEVEN_SCENES.glob("frame-*"))[:15]:
        (tmp_path / file.name).symlink_to(file.resolve())
    suite = open_suite("rgbd_bench", str(tmp_path), "seven_scenes")
    items = suite.items()
    assert len(suite.samples) == 3 and len(suite.fitted) == 2 and len(items) == 24
    scores = [suite.score(item, suite.oracle(item, Convention()), Convention()).value for item in items]
    assert np.mean(scores) == 1
    assert all(frame.depth is not None for sample in suite.samples for frame in sample.frames)
