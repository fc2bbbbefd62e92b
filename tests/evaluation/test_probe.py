"""Probes: targets on known surfaces, ridge against a direct solution, scores of readers that know a known share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch

from gemvlm.camera import Camera, View
from gemvlm.depth_map import DepthMap
from gemvlm.evaluation.probe import ProbeData, probe
from gemvlm.evaluation.probe_readers import ImageStates, spread
from gemvlm.evaluation.probe_report import ProbeReport, pooled_ratio
from gemvlm.evaluation.probe_ridge import PENALTIES, RidgeSums
from gemvlm.evaluation.probe_targets import TokenTargets, square, surface_normals, token_targets
from gemvlm.sample import Frame, Sample
from gemvlm.statistics import mean_interval

SIZE, GRID = 48, (6, 6)
VIEW = View(Camera.from_fov(SIZE, SIZE, 50.0), np.eye(4))


def plane_depth(normal: Sequence[float], distance_m: float, view: View = VIEW) -> np.ndarray:
    """z of a plane at `distance_m` along its unit normal, which faces the camera."""
    return -distance_m / (view.camera.rays() @ np.array(normal))


def frame(z: np.ndarray, image: int = 0) -> Frame:
    return Frame(np.full((*z.shape, 3), image, np.uint8), DepthMap.from_values(z.astype(np.float32)), VIEW)


@cache
def scene(seed: int) -> Sample:
    """A tilted plane with a box before it; its picture holds the seed."""
    rng = np.random.default_rng(seed)
    normal = np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.8, -0.4), -0.8])
    z = plane_depth(normal / np.linalg.norm(normal), rng.uniform(0.8, 1.6))
    top, left = rng.integers(4, 30, 2)
    z[top : top + 14, left : left + 14] *= 0.7
    return Sample(f"s{seed}", (frame(z, seed),), (), f"scene {seed // 2}", "test")


DATA = ProbeData([scene(i) for i in range(30)], [scene(i) for i in range(30, 40)], [scene(i) for i in range(40, 70)])


@cache
def truth_of(seed: int) -> TokenTargets:
    return token_targets(scene(seed).frames[0], GRID)


@dataclass
class Knows:
    """Features that hold depth, normals and relief, mixed, with noise of a share of each target's deviation."""

    noise: float
    name: str = "model"
    layers: tuple[int, ...] = (0, 1)

    def read(self, images: Sequence[np.ndarray]) -> list[ImageStates]:
        found = []
        for image in images:
            seed = int(image[0, 0, 0])
            truth = truth_of(seed)
            values = np.concatenate([truth.values[t] for t in ("depth", "normals", "relief")], axis=1)
            rng = np.random.default_rng(seed)
            noisy = values + self.noise * DEVIATIONS * rng.standard_normal(values.shape)
            mixed = noisy @ np.random.default_rng(0).standard_normal((5, 12)) + 3
            nothing = rng.standard_normal((36, 12))
            found.append(ImageStates(torch.from_numpy(np.stack([mixed, nothing])).float(), GRID))
        return found


_TRUTHS = [token_targets(sample.frames[0], GRID) for sample in DATA.train]
DEVIATIONS = np.concatenate(
    [np.concatenate([t.values[name] for t in _TRUTHS]).std(0) for name in ("depth", "normals", "relief")]
)


@pytest.fixture(scope="module")
def report() -> ProbeReport:
    return probe([Knows(0.0), Knows(1.0, "half")], DATA)


def test_a_plane_has_its_normal_everywhere_and_no_relief() -> None:
    normal = np.array([0.2, -0.5, -0.8]) / np.linalg.norm([0.2, -0.5, -0.8])
    truth = token_targets(frame(plane_depth(normal, 1.2)), GRID)
    np.testing.assert_allclose(truth.values["normals"], np.tile(normal, (36, 1)), atol=1e-3)
    np.testing.assert_allclose(truth.values["relief"], 0, atol=0.01)
    z = np.exp(truth.values["depth"]).reshape(GRID)
    expected = plane_depth(normal, 1.2).reshape(6, 8, 6, 8).mean((1, 3))
    np.testing.assert_allclose(z, expected, rtol=0.04)
    assert all(known.all() for known in truth.known.values())


def test_a_ball_has_the_normals_of_a_ball() -> None:
    rays, centre, radius = VIEW.camera.rays(), np.array([0.0, 0.0, 2.0]), 1.2
    a, b, c = (rays**2).sum(-1), rays @ centre, centre @ centre - radius**2
    z = (b - np.sqrt(b**2 - a * c)) / a
    normals, known = surface_normals(DepthMap.from_values(z.astype(np.float32)), VIEW)
    expected = (rays * z[..., None] - centre) / radius
    assert known[1:-1, 1:-1].mean() > 0.95
    assert not known[0].any() and not known[:, -1].any()
    angles = np.degrees(np.arccos(np.clip((normals * expected).sum(-1)[known], -1, 1)))
    assert angles.max() < 1.5


def test_what_stands_out_has_relief_and_edges_have_no_normal() -> None:
    z = np.full((SIZE, SIZE), 2.0)
    z[16:32, 16:32] = 1.0
    truth = token_targets(frame(z), GRID)
    relief = truth.values["relief"].reshape(GRID)
    assert relief[2:4, 2:4].min() > 0.5 > 0 > relief[0].max()
    _, known = surface_normals(DepthMap.from_values(z.astype(np.float32)), VIEW)
    assert not known[15:17, 20].any() and known[20, 20] and known[4, 4]


def test_relief_does_not_change_with_the_unit_of_depth() -> None:
    z = plane_depth([0, -0.6, -0.8], 1.0)
    z[10:20, 10:20] *= 0.8
    one, other = (token_targets(frame(s * z), GRID).values["relief"] for s in (1, 3))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_tokens_without_depth_are_left_out_and_normals_need_a_camera() -> None:
    z = plane_depth([0, -0.6, -0.8], 1.0).astype(np.float32)
    valid = np.ones(z.shape, bool)
    valid[:8, :8] = False
    holed = DepthMap(z, valid, "metric_z", "m", "test")
    truth = token_targets(Frame(np.zeros((SIZE, SIZE, 3), np.uint8), holed), GRID)
    assert "normals" not in truth.values
    assert not truth.known["depth"][0] and truth.known["depth"][1:].all()
    with pytest.raises(ValueError, match="no metric depth"):
        token_targets(Frame(np.zeros((SIZE, SIZE, 3), np.uint8)), GRID)


def test_the_square_of_a_frame_keeps_pixels_depth_and_camera_together() -> None:
    view = View(Camera.from_fov(80, SIZE, 50.0), np.eye(4))
    z = plane_depth([0.1, -0.6, -0.8], 1.0, view).astype(np.float32)
    image = np.random.default_rng(0).integers(0, 255, (SIZE, 80, 3)).astype(np.uint8)
    cut = square(Frame(image, DepthMap.from_values(z), view))
    assert cut.depth is not None and cut.view is not None
    np.testing.assert_array_equal(cut.image, image[:, 16:64])
    np.testing.assert_array_equal(cut.depth.values, z[:, 16:64])
    np.testing.assert_allclose(cut.view.camera.rays(), view.camera.rays()[:, 16:64])


def test_ridge_from_sums_equals_a_direct_solution() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 7)) @ rng.standard_normal((7, 7)) + 5
    y = rng.standard_normal((200, 2)) + x[:, :2]
    sums = RidgeSums()
    for start in range(0, 200, 64):
        sums.add(torch.from_numpy(x[start : start + 64]), torch.from_numpy(y[start : start + 64]))
    new = rng.standard_normal((9, 7))
    found = sums.solve().predict(torch.from_numpy(new)).numpy()
    mean, deviation = x.mean(0), x.std(0)
    a, b = (x - mean) / deviation, y - y.mean(0)
    for place, penalty in enumerate(PENALTIES):
        weights = np.linalg.solve(a.T @ a + 200 * penalty * np.eye(7), a.T @ b)
        np.testing.assert_allclose(found[place], (new - mean) / deviation @ weights + y.mean(0), atol=1e-8)


def test_features_that_never_change_say_nothing_and_no_rows_are_an_error() -> None:
    x = np.concatenate([np.full((50, 1), 4.0), np.random.default_rng(0).standard_normal((50, 1))], axis=1)
    sums = RidgeSums()
    sums.add(torch.from_numpy(x), torch.from_numpy(x[:, 1:]))
    path = sums.solve()
    assert float(path.weights[:, 0].abs().max()) == 0
    np.testing.assert_allclose(path.predict(torch.from_numpy(x))[0], x[:, 1:], atol=1e-4)
    with pytest.raises(ValueError, match="no training token"):
        RidgeSums().solve()


def test_who_knows_scores_one_and_who_knows_half_scores_half(report: ProbeReport) -> None:
    for target in ("depth", "normals", "relief"):
        rows = report.layers("model", target, "r2")
        assert [row.layer for row in rows] == [0, 1]
        assert rows[0].score.mean > 0.999
        assert abs(rows[1].score.mean) < 0.05, "features of chance explain nothing"
        assert report.best("model", target).layer == 0
    # noise as large as the target's own deviation leaves about half of it to be explained
    assert 0.35 < report.best("half", "depth").score.mean < 0.75
    errors = report.layers("model", "depth", "abs_rel")
    assert errors[0].score.mean < 0.01 < errors[1].score.mean
    assert report.layers("model", "normals", "angle_deg")[0].score.mean < 1


def test_the_mean_map_scores_what_the_mean_map_scores(report: ProbeReport) -> None:
    train = np.stack([token_targets(s.frames[0], GRID).values["depth"] for s in DATA.train])
    test = np.stack([token_targets(s.frames[0], GRID).values["depth"] for s in DATA.test])
    expected = 1 - ((test - train.mean(0)) ** 2).sum() / ((test - train.mean()) ** 2).sum()
    assert report.best("mean map", "depth").score.mean == pytest.approx(expected, abs=0.02)
    assert report.best("position only", "depth").score.mean == pytest.approx(expected, abs=0.1)
    assert report.best("mean map", "relief").score.mean < 0.3 < report.best("half", "relief").score.mean


def test_differences_are_paired_and_leave_out_zero_where_they_are_plain(report: ProbeReport) -> None:
    above = report.against("half", "depth")
    assert above.low > 0
    gap = report.best("model", "depth").score.mean - report.best("half", "depth").score.mean
    assert above.mean == pytest.approx(gap)
    assert report.against("model", "depth").mean == 0


def test_scores_do_not_depend_on_how_frames_are_chunked(report: ProbeReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemvlm.evaluation.probe.CHUNK", 7)
    again = probe([Knows(0.0), Knows(1.0, "half")], DATA)
    for one, other in zip(report.rows, again.rows, strict=True):
        assert one.score.mean == pytest.approx(other.score.mean, abs=1e-9)
        assert one.penalty == other.penalty


def test_a_pooled_ratio_over_ones_is_a_mean() -> None:
    values, scenes = np.random.default_rng(0).random(60), [f"s{i // 3}" for i in range(60)]
    ratio = pooled_ratio([(scene, value, 1.0) for scene, value in zip(scenes, values, strict=True)])
    mean = mean_interval(values, scenes, resamples=1000)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((mean.mean, mean.low, mean.high))


def test_the_plot_and_the_table_name_everything(report: ProbeReport) -> None:
    picture = report.plot().decode()
    for words in ("Depth: relative error", "Relief: share explained", "position only", "mean map", "half"):
        assert words in picture
    assert report.plot("png").startswith(b"\x89PNG")
    assert "| depth | mean map | 0 |" in report.to_markdown()
    found = report.to_dict()
    assert found["best_layer"]["depth"]["model"] == 0
    assert found["scenes"] == {"train": 15, "development": 5, "test": 15}
    with pytest.raises(ValueError, match="readers are"):
        report.best("nobody", "depth")


def test_parts_that_share_a_scene_or_are_empty_or_differ_in_size_are_refused() -> None:
    with pytest.raises(ValueError, match="'scene 0' is in train and test"):
        ProbeData([scene(0)], [scene(2)], [scene(1)])
    with pytest.raises(ValueError, match="no frames to development on"):
        ProbeData([scene(0)], [], [scene(4)])
    small = replace(scene(8), frames=(Frame(np.zeros((4, 4, 3), np.uint8)),))
    with pytest.raises(ValueError, match="2 sizes"):
        ProbeData([scene(0)], [scene(2)], [small])
    with pytest.raises(ValueError, match="one name"):
        probe([Knows(0.0), Knows(1.0)], DATA)


def test_deep_models_are_read_at_layers_that_are_evenly_spread() -> None:
    assert spread(6) == tuple(range(7))
    assert spread(28)[0] == 0 and spread(28)[-1] == 28 and len(spread(28)) == 16
