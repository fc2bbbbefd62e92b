"""The numbers by which maps are accepted, and what is done with samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemvlm.camera import Camera, View
from gemvlm.curation.depth_teacher import (
    AcceptanceRules,
    DepthTeacher,
    FunctionTeacher,
    LabelRules,
    accept,
    agreement,
    flip_consistency,
    label_depth,
    label_part,
    relief,
)
from gemvlm.curation.depth_teacher.quality import with_quality
from gemvlm.curation.source import Rejection
from gemvlm.depth_map import DepthMap
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.sample import Frame, Sample


def picture(seed=0, height=40, width=60):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def from_brightness(image, focal):
    """Something that depends on each pixel alone, and so survives mirroring."""
    return 1 + image.mean(axis=-1) / 50


def from_column(image, focal):
    """Nearer on the left, whatever the image shows: mirroring betrays it."""
    return np.tile(np.linspace(1, 4, image.shape[1]), (image.shape[0], 1))


def teacher(function=from_brightness, kind="metric_z", name="bright"):
    return FunctionTeacher(name, "sha256:0", "MIT", kind, function)


def sample(*frames, name="s"):
    return Sample(name, frames, (), "", "")


def test_functions_are_teachers_and_name_themselves():
    one = teacher(kind="affine_disparity")
    assert isinstance(one, DepthTeacher)
    (depth,) = one.predict([picture()])
    assert depth.origin == DepthOrigin("teacher", "bright", "sha256:0", "MIT", quality={"valid_fraction": 1.0})
    with pytest.raises(ValueError, match="one per image"):
        one.predict([picture()], [1.0, 2.0])
    with pytest.raises(ValueError, match="one per image"):
        one.predict([picture()], [-1.0])


@pytest.mark.parametrize("kind", ["metric_z", "affine_depth", "affine_disparity"])
def test_mirroring_tells_what_looks_from_what_does_not(kind):
    images = [picture(0), picture(1, 30, 44)]
    for function, expected in ((from_brightness, 1.0), (from_column, 0.3)):
        one = teacher(function, kind)
        shares = flip_consistency(one, images, one.predict(images))
        assert all(share == 1 if expected == 1 else share < expected for share in shares)


def test_agreement_needs_the_same_depth_where_both_are_metric_and_the_same_shape_where_not():
    (bright,), (column,) = (teacher(f).predict([picture()]) for f in (from_brightness, from_column))
    disparity = replace(bright, values=3 / bright.values - 0.2, kind="affine_disparity", unit="")
    assert agreement(bright, bright) == 1
    assert agreement(bright, replace(bright, values=bright.values * np.float32(1.3))) == 0
    assert agreement(bright, disparity) == agreement(disparity, bright) == 1
    assert agreement(disparity, column) < 0.5
    assert agreement(bright, replace(bright, valid=np.zeros_like(bright.valid))) == 0


def test_relief_is_a_ratio_of_depths():
    ramp = np.linspace(1, 2, 1000).reshape(20, 50).astype(np.float32)
    metric = DepthMap.from_values(ramp)
    assert relief(metric) == pytest.approx(1.98 / 1.02, rel=0.01)
    assert relief(DepthMap.from_values(1 / ramp, "affine_disparity")) == pytest.approx(relief(metric), rel=0.01)
    assert relief(DepthMap.from_values(np.log(ramp), "affine_log_depth")) == pytest.approx(relief(metric), rel=0.01)
    assert relief(DepthMap.from_values(ramp - 1.5, "affine_depth")) == np.inf
    assert relief(DepthMap.from_values(np.zeros((20, 50)), "affine_disparity")) == 1


def test_the_rule_of_acceptance():
    ramp = DepthMap.from_values(np.linspace(1, 2, 1000).reshape(20, 50))
    assert accept(ramp) is None
    assert accept(DepthMap.from_values(np.linspace(1, 1.03, 1000).reshape(20, 50))).reason == "flat"
    holes = replace(ramp, valid=np.arange(1000).reshape(20, 50) < 400)
    assert accept(holes).reason == "few_valid"
    assert accept(with_quality(ramp, flip_consistency=0.79)).reason == "low_flip_consistency"
    assert accept(with_quality(ramp, flip_consistency=0.81, agreement=0.7)).reason == "low_agreement"
    assert accept(with_quality(ramp, agreement=0.7), AcceptanceRules(min_agreement=0.6)) is None


def test_truth_stays_and_frames_without_get_a_map_with_its_numbers():
    truth = DepthMap.from_values(np.full((40, 60), 2.0))
    labelled = label_depth(sample(Frame(picture(), truth), Frame(picture(1))), teacher(), second=teacher())
    assert labelled.frames[0].depth is truth
    depth = labelled.frames[1].depth
    assert depth.origin.quality == {"valid_fraction": 1.0, "flip_consistency": 1.0, "agreement": 1.0}
    assert (depth.kind, depth.origin.provenance, depth.origin.model) == ("metric_z", "teacher", "bright")
    whole = sample(Frame(picture(), truth))
    assert label_depth(whole, teacher()) is whole


def test_refused_maps_are_named_and_a_sample_without_any_is_rejected():
    bad = teacher(from_column)
    refused = label_depth(sample(Frame(picture())), bad)
    assert isinstance(refused, Rejection)
    assert (refused.stage, refused.reason, refused.field) == ("depth", "low_flip_consistency", "frames[0].depth")
    kept = label_depth(sample(Frame(picture())), bad, LabelRules(required=False))
    assert kept.meta["depth_refused"] == {"0": "low_flip_consistency"}
    assert label_depth(sample(Frame(picture())), bad, LabelRules(AcceptanceRules(min_flip=0.0))).frames[0].depth


def test_the_focal_length_of_the_view_reaches_the_teacher():
    heard = []

    def listens(image, focal):
        heard.append(focal)
        return from_brightness(image, focal)

    view = View(Camera(60, 40, 55.0, 55.0, 30.0, 20.0), np.eye(4))
    label_depth(sample(Frame(picture(), view=view), Frame(picture())), teacher(listens))
    assert heard == [55.0, None, 55.0, None]


def test_parts_keep_their_order_and_one_bad_picture_spoils_no_other():
    def fails(image, focal):
        if image.shape[0] == 41:
            raise RuntimeError("no")
        return from_brightness(image, focal)

    early = Rejection("import", "bad", "")
    items = [sample(Frame(picture(i, 41 if i == 2 else 40)), name=f"s{i}") for i in range(5)]
    found = list(label_part([items[0], early, *items[1:]], teacher(fails), frames_at_once=3))
    assert [type(one).__name__ for one in found] == ["Sample", "Rejection", "Sample", "Rejection", "Sample", "Sample"]
    assert found[1] is early
    assert found[3].reason == "teacher_failed"
    alone = [label_depth(item, teacher(fails)) for item in items]
    for one, other in zip([found[0], *found[2:]], alone, strict=True):
        if isinstance(one, Sample):
            assert (one.frames[0].depth.values == other.frames[0].depth.values).all()


def test_a_sensors_holes_are_filled_only_if_asked():
    values = from_brightness(picture(), None).astype(np.float32)
    valid = np.ones(values.shape, bool)
    valid[10:20, 10:20] = False
    sensor = DepthMap(np.where(valid, values, 0), valid, "metric_z", "m", "kinect", DepthOrigin("sensor"))
    holed = sample(Frame(picture(), sensor))
    assert label_depth(holed, teacher()).frames[0].depth is sensor
    relative = teacher(lambda image, focal: 2 / from_brightness(image, focal) + 0.1, "affine_disparity")
    filled = label_depth(holed, relative, LabelRules(fill_holes=True)).frames[0].depth
    assert filled.valid.all()
    assert filled.values == pytest.approx(values, rel=1e-3)
    assert filled.origin.provenance == "teacher"
    simulated = replace(sensor, origin=DepthOrigin("simulator"))
    assert (
        label_depth(sample(Frame(picture(), simulated)), relative, LabelRules(fill_holes=True)).frames[0].depth
        is simulated
    )


def test_rules_from_plain_data():
    rules = LabelRules.from_json({"acceptance": {"min_flip": 0.0}, "alignment": {"seed": 3}, "required": False})
    assert (rules.acceptance.min_flip, rules.alignment.seed, rules.required) == (0.0, 3, False)
    for bad in ({"accept": {}}, {"acceptance": {"flip": 0}}):
        with pytest.raises(ValueError, match="LabelRules"):
            LabelRules.from_json(bad)
