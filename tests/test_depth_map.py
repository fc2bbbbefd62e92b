"""Depth keeps its meaning through files, resizing and every encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from PIL import Image

from gemvlm.camera import Camera
from gemvlm.depth_map import (
    DepthMap,
    Encoding,
    decode,
    encode,
    encoded_space,
    fill,
    from_space,
    spectral_picture,
    target_size,
    to_space,
)
from gemvlm.depth_map.spectral import robust_range

FIXTURES = Path(__file__).parents[1] / "../shared/fixtures/a"
ENCODINGS = ["spectral", "log", "sqrt_disparity"]


def slope(height: int = 24, width: int = 32, near: float = 0.5, far: float = 4.0) -> DepthMap:
    """Depth that grows evenly in log from the left column to the right one."""
    row = np.exp(np.linspace(np.log(near), np.log(far), width))
    return DepthMap.from_values(np.tile(row, (height, 1)), source="slope")


def with_hole(depth: DepthMap) -> DepthMap:
    values, valid = depth.values.copy(), depth.valid.copy()
    valid[8:14, 10:20] = False
    values[~valid] = 1000.0
    return DepthMap(values, valid, depth.kind, depth.unit, depth.source)


@pytest.fixture(scope="module")
def authors() -> dict[str, np.ndarray]:
    if not FIXTURES.is_dir():
        pytest.skip("the numerical fixtures are not beside this checkout")
    from safetensors.numpy import load_file

    return load_file(FIXTURES / "depth_encoding.safetensors")


def test_bad_values_are_counted_and_the_origin_named() -> None:
    values = np.ones((4, 5), np.float32)
    values[0, :3], values[1, :2] = np.nan, -1
    with pytest.raises(ValueError, match=r"'probe': of 20 valid pixels 3 are NaN .* and 2 are zero or neg"):
        DepthMap.from_values(values, source="probe")
    assert DepthMap(values, values > 0, "metric_z", "m", "probe").valid.sum() == 15


def test_a_unit_must_fit_the_kind() -> None:
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="can't have the unit"):
        DepthMap(ones, ones > 0, "affine_depth", "m", "x")
    with pytest.raises((ValueError, TypeCheckError), match="valid"):
        DepthMap(ones, np.ones((2, 3), bool), "metric_z", "m", "x")
    with pytest.raises((ValueError, TypeCheckError), match="inverse"):
        DepthMap(ones, ones > 0, "inverse", "", "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".png", ".npz"])
def test_files_return_what_was_saved(tmp_path: Path, suffix: str) -> None:
    depth = with_hole(slope())
    depth.save(tmp_path / f"a{suffix}")
    back = DepthMap.from_file(tmp_path / f"a{suffix}")
    assert (back.kind, back.unit, back.source) == ("metric_z", "m", "slope")
    assert (back.valid == depth.valid).all()
    error = np.abs(back.values - depth.values)[depth.valid].max()
    assert error <= (0.00051 if suffix == ".png" else 0)


def test_files_that_mean_nothing_are_refused_by_name(tmp_path: Path) -> None:
    relative = DepthMap.from_values(np.ones((2, 2), np.float32), "affine_depth", "x")
    with pytest.raises(ValueError, match=r"a\.png: affine_depth has no unit"):
        relative.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="6 pixels lie outside"):
        DepthMap.from_values(np.full((2, 3), 80.0)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"missing\.png: no such"):
        DepthMap.from_file(tmp_path / "missing.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(ValueError, match=r"torn\.png: not a readable image"):
        DepthMap.from_file(tmp_path / "torn.png")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match="mode 'RGB'"):
        DepthMap.from_file(tmp_path / "rgb.png")
    Image.fromarray(np.ones((2, 2), np.uint16)).save(tmp_path / "bare.png")
    with pytest.raises(ValueError, match=r"bare\.json is missing"):
        DepthMap.from_file(tmp_path / "bare.png")
    np.savez(tmp_path / "other.npz", depth=np.ones(3))
    with pytest.raises(ValueError, match=r"other\.npz: not a depth file of ours"):
        DepthMap.from_file(tmp_path / "other.npz")


def test_ray_distance_becomes_z_depth() -> None:
    camera = Camera.from_fov(16, 12, 60.0)
    ray = np.linalg.norm(camera.rays() * 2.5, axis=-1)
    z = DepthMap.from_values(ray, "ray_distance", "x").to_z(camera)
    assert z.kind == "metric_z"
    assert np.allclose(z.values, 2.5, atol=1e-6)
    with pytest.raises(ValueError, match="resize one to the other"):
        DepthMap.from_values(ray, "ray_distance", "x").to_z(Camera.from_fov(8, 6, 60.0))


@pytest.mark.parametrize("size", [(16, 12), (13, 7), (64, 48), (8, 40)])
def test_resizing_never_mixes_in_what_is_invalid(size: tuple[int, int]) -> None:
    values = np.full((24, 32), 2.0, np.float32)
    valid = np.random.default_rng(0).random(values.shape) > 0.4
    values[~valid] = 9000.0
    small = DepthMap(values, valid, "metric_z", "m", "x").resized(*size)
    assert small.values.shape == (size[1], size[0])
    assert small.valid.any()
    assert np.allclose(small.values[small.valid], 2.0, atol=1e-5)
    hole = with_hole(slope()).resized(16, 12)
    assert not hole.valid[4:7, 5:10].any()
    assert hole.valid.sum() == 16 * 12 - 15


def test_resizing_agrees_with_an_independent_antialiased_resize() -> None:
    values = np.random.default_rng(1).random((30, 44)).astype(np.float32) + 1
    ours = DepthMap.from_values(values).resized(17, 12).values
    theirs = np.array(Image.fromarray(values).resize((17, 12), Image.Resampling.BILINEAR))
    assert np.abs(ours - theirs).max() < 1e-5


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("fixed", [True, False])
def test_decode_undoes_encode(name: str, fixed: bool) -> None:
    encoding = Encoding(name, 0.4, 5.0) if fixed else Encoding(name)
    depth = with_hole(slope())
    made = encode(depth, encoding, 24, 32)
    back, confidence = decode(made.picture, encoding, made.low, made.high)
    assert (made.valid == depth.valid).all()
    assert (back.kind, back.unit) == ("metric_z", "m")
    low, high = sorted(from_space(np.array([made.low, made.high]), encoding.space))
    truth = np.clip(depth.values, low, high)
    error = np.abs(back.values / truth - 1)[depth.valid].max()
    assert error < (0.02 if name == "spectral" else 1e-5)
    assert confidence.min() > 0.9


@pytest.mark.parametrize("name", ENCODINGS)
def test_without_a_range_the_decoded_map_is_affine_in_its_own_space(name: str) -> None:
    encoding, depth = Encoding(name), slope()
    decoded, _ = decode(encode(depth, encoding, 24, 32).picture, encoding)
    assert not decoded.is_metric
    assert 0 <= decoded.values.min() <= decoded.values.max() <= 1
    scalar = encoded_space(depth.values.astype(np.float64), encoding)
    inside = (scalar > np.quantile(scalar, 0.05)) & (scalar < np.quantile(scalar, 0.95))
    assert np.corrcoef(decoded.values[inside], scalar[inside])[0, 1] > 0.9999


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings_are_monotone_with_near_first(name: str) -> None:
    """A3: one encoding for every stage, and one direction: the farther, the later on the curve."""
    encoding = Encoding(name, 0.4, 5.0)
    picture = encode(slope(), encoding, 24, 32).picture
    decoded, _ = decode(picture, encoding)
    assert (np.diff(decoded.values, axis=1) > 0).all()
    if name != "spectral":
        assert picture[0, 0, 0] < -0.6
        assert picture[0, 0, -1] > 0.6
    else:
        assert picture[0, 0, 0] > 0.2 > picture[2, 0, 0]  # near is red
        assert picture[2, 0, -1] > picture[1, 0, -1]  # far is violet


@pytest.mark.parametrize("name", ENCODINGS)
def test_the_scalar_is_resized_never_the_colours(name: str) -> None:
    """B15: halfway between two depths lies a depth between them, not the colour of a third one."""
    values = np.where(np.arange(64) < 31, 0.5, 4.0)[None].repeat(32, 0)
    encoding = Encoding(name, 0.4, 5.0)
    made = encode(DepthMap.from_values(values), encoding, 16, 32)
    decoded, confidence = decode(made.picture, encoding)
    assert confidence.min() > 0.95
    assert decoded.values.min() > 0.45
    assert decoded.values.max() < 4.4
    assert (np.diff(decoded.values, axis=1) > -0.05).all()


@pytest.mark.parametrize("known", [1, 3, 40, 400])
def test_filling_takes_the_nearest_valid_pixel(known: int) -> None:
    rng = np.random.default_rng(known)
    values, valid = rng.random((23, 37)).astype(np.float32), np.zeros((23, 37), bool)
    valid.ravel()[rng.choice(valid.size, known, replace=False)] = True
    filled = fill(np.where(valid, values, np.nan).astype(np.float32), valid)
    places, seeds = np.argwhere(~valid), np.argwhere(valid)
    copied = np.array([np.flatnonzero(values[valid] == filled[row, column])[0] for row, column in places])
    distances = np.linalg.norm(places[:, None] - seeds, axis=-1)
    extra = distances[np.arange(len(places)), copied] - distances.min(axis=1)
    assert (filled[valid] == values[valid]).all()
    assert np.mean(extra > 0) < 0.01  # jump flooding misses few, and those by little
    assert extra.max() < 1


@pytest.mark.parametrize("size", [11, 60, 3_001, 40_000])
def test_the_range_is_numpys_percentiles_to_the_bit(size: int) -> None:
    random = np.random.default_rng(size)
    smooth = np.sort(random.random(size))
    for values in (random.standard_normal(size), smooth, smooth[::-1], random.integers(0, 4, size) * 0.1):
        scalar = values.astype(np.float32)[None]
        assert robust_range(scalar, np.ones_like(scalar, bool)) == tuple(np.percentile(scalar, [2, 98]).astype("f4"))


def test_holes_are_filled_from_the_nearest_depth() -> None:
    values = np.where(np.arange(40) < 20, 1.0, 3.0)[None].repeat(30, 0)
    valid = np.ones(values.shape, bool)
    valid[5:25, 12:27] = False
    depth = DepthMap(np.where(valid, values, np.nan).astype(np.float32), valid, "metric_z", "m", "x")
    encoding = Encoding("log", 0.5, 5.0)
    made = encode(depth, encoding, 30, 40)
    filled = decode(made.picture, encoding)[0].values
    assert np.allclose(filled[:, :18], 1.0, atol=1e-4)
    assert np.allclose(filled[:, 21:], 3.0, atol=1e-4)
    assert (made.valid == valid).all()
    nothing = encode(DepthMap(values.astype(np.float32), ~valid & valid, "metric_z", "m", "x"), encoding, 30, 40)
    assert not nothing.valid.any()
    assert (nothing.picture == 1).all()


@pytest.mark.parametrize("name", ENCODINGS)
def test_confidence_falls_where_a_picture_is_no_depth(name: str) -> None:
    encoding = Encoding(name, 0.4, 5.0)
    picture = encode(slope(), encoding, 24, 32).picture.copy()
    picture[:, :12] = np.array([-1, 1, -1], np.float32)[:, None, None]  # pure green lies on no curve
    _, confidence = decode(picture, encoding)
    assert confidence[:12].max() < 0.1
    assert confidence[12:].min() > 0.9


def test_spectral_decodes_under_noise_better_than_its_fold_would_allow() -> None:
    encoding, depth = Encoding("spectral", 0.4, 5.0), slope(40, 60)
    made = encode(depth, encoding, 40, 60)
    noise = np.random.default_rng(0).normal(0, 0.1, made.picture.shape).astype(np.float32)
    decoded, _ = decode(made.picture + noise, encoding)
    near, far = 1 / 0.4, 1 / 5.0
    error = np.abs(1 / decoded.values - 1 / depth.values) / (near - far)
    assert error.mean() < 0.03
    assert (error > 0.1).mean() < 0.01


def test_relative_maps_encode_only_where_that_means_something() -> None:
    disparity = DepthMap.from_values(1 / slope().values, "affine_disparity", "teacher")
    metric, relative = (encode(depth, Encoding("log"), 24, 32).picture for depth in (slope(), disparity))
    assert np.allclose(metric, relative, atol=1e-4)
    with pytest.raises(ValueError, match="needs metric depth"):
        encode(disparity, Encoding("log", 1.0, 2.0), 24, 32)
    with pytest.raises(ValueError, match="ray_distance and can't be expressed as log"):
        encode(DepthMap.from_values(slope().values, "ray_distance", "x"), Encoding("log"), 24, 32)
    negative = DepthMap.from_values(slope().values - 1, "affine_disparity", "x")
    with pytest.raises(ValueError, match="can't be expressed"):
        encode(negative, Encoding("log"), 24, 32)
    assert encode(negative, Encoding("spectral"), 24, 32).valid.all()


def test_ranges_are_checked() -> None:
    for near, far in ((2.0, 1.0), (0.0, 1.0), (1.0, None)):
        with pytest.raises(ValueError, match="encoding log"):
            Encoding("log", near, far)
    with pytest.raises((ValueError, TypeCheckError), match="inferno"):
        Encoding("inferno")  # type: ignore[arg-type]


@pytest.mark.parametrize("space", ["depth", "disparity", "log", "sqrt_disparity"])
def test_spaces_are_undone(space: str) -> None:
    z = np.array([0.1, 1.0, 7.0])
    assert np.allclose(from_space(to_space(z, space), space), z)


def test_target_sizes_are_exact() -> None:
    assert target_size(480, 640) == (320, 448)
    assert target_size(720, 1280) == (224, 448)
    assert target_size(1000, 10) == (448, 32)
    assert all(max(target_size(n, 7)) == 448 for n in range(1, 5000))


def test_target_size_agrees_with_the_release_except_for_its_float_slips(authors: dict[str, np.ndarray]) -> None:
    """The release computes in floats: some long sides give 416 instead of 448, and some short sides lose a cell."""
    for height, width, *size in authors["size_rule"]:
        exact = target_size(int(height), int(width))
        assert exact == tuple(size) or max(size) == 416 or int(height) * 448 % int(max(height, width)) == 0
    assert all(target_size(int(n), int(n)) == (448, 448) for n in authors["long_sides_giving_416"])


@pytest.mark.parametrize("case", range(6))
def test_spectral_colours_equal_the_release_bit_for_bit(authors: dict[str, np.ndarray], case: int) -> None:
    depth, expected = authors[f"c{case}.nearest"], authors[f"c{case}.vis_u8"]
    assert (spectral_picture(depth.astype(np.float32)) == expected).all()


def test_encode_paints_the_colours_of_the_release_where_depth_is_known(authors: dict[str, np.ndarray]) -> None:
    counts = authors["c0.nearest"].astype(np.float32)
    depth = DepthMap(counts, counts > 0, "affine_depth", "", "fixture")
    made = encode(depth, Encoding("spectral"), *counts.shape)
    levels = np.round((made.picture + 1) / 2 * 255).astype(np.uint8)
    assert (levels[:, depth.valid] == authors["c0.vis_u8"][:, depth.valid]).all()
    assert np.isclose(made.low, authors["c0.disp_min"], rtol=1e-6)
    assert np.isclose(made.high, authors["c0.disp_max"], rtol=1e-6)
