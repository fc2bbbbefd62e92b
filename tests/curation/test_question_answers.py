"""Answers against a second computation that sees only depth, ids, names and the camera, never a pose or a box."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gemvlm.curation.questions import write_questions

pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")

SCENES = range(32)


def gap(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2).min()


def named(question, pattern):
    return re.search(pattern, question).groups()


def closer(p, turn):
    return min(turn.options, key=lambda o: np.linalg.norm(p.cloud(o) - p.eye, axis=1).min())


def left_right(p, turn):
    return (min if "left" in turn.question else max)(turn.options, key=p.column)


def above_below(p, turn):
    return max(turn.options, key=lambda o: p.cloud(o)[:, 2].mean())


def larger(p, turn):
    return max(turn.options, key=lambda o: upright_volume(p.cloud(o)))


def upright_volume(cloud):
    """Of the smallest upright box around the cloud, among nine yaws, widened by half a pixel's worth."""
    areas = []
    for yaw in np.radians(np.arange(0, 90, 10)):
        axes = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        areas.append((np.ptp(cloud[:, :2] @ axes, axis=0) + 0.004).prod())
    return min(areas) * (np.ptp(cloud[:, 2]) + 0.004)


def nearer_to(p, turn):
    (anchor,) = named(turn.question, r"nearer to the ([\w ]+),")
    return min(turn.options, key=lambda o: gap(p.cloud(anchor), p.cloud(o)))


def perspective(p, turn):
    at, facing, asked = (
        p.middle(n)[:2] for n in named(turn.question, r"at the (.+) facing the (.+), is the (.+) on your")
    )
    forward, side = facing - at, asked - at
    return "left" if forward[0] * side[1] > forward[1] * side[0] else "right"


CHOICES = {
    "closer": closer,
    "nearest_of": closer,
    "left_right": left_right,
    "above_below": above_below,
    "larger": larger,
    "nearer_to": nearer_to,
    "perspective": perspective,
}


@pytest.fixture(scope="module")
def views(pixels_of):
    from gemvlm.worlds.tabletop import build_scene

    families = [
        *CHOICES,
        "object_depth",
        "distance",
        "object_at",
        "point",
        "point_extremum",
        "free_space",
        "fits",
        "count",
    ]
    observations = [build_scene(seed).observe(0) for seed in SCENES]
    return [(pixels_of(o), write_questions(o, (i,), families, turns_per_family=6)) for i, o in enumerate(observations)]


def of_family(views, family):
    return [(pixels, turn) for pixels, turns in views for turn in turns if turn.family == family]


@pytest.mark.parametrize("family", CHOICES)
def test_choices_agree_with_the_depth_picture(views, family):
    asked = of_family(views, family)
    agree = [CHOICES[family](pixels, turn) == turn.answer for pixels, turn in asked]
    assert len(agree) >= 48
    assert np.mean(agree) >= 0.98, [t.question for (_, t), ok in zip(asked, agree, strict=True) if not ok]


def test_object_depths_agree_with_the_depth_picture(views):
    asked = of_family(views, "object_depth")
    errors = []
    for pixels, turn in asked:
        (name,) = named(turn.question, r"the ([a-z]+ ?[a-z]*?)(?: in metres)?\?$")
        errors.append(abs(pixels.depth(name).mean() / float(turn.answer) - 1))
    assert len(errors) >= 100 and np.mean(np.array(errors) < 0.05) >= 0.98


def test_distances_agree_with_the_depth_picture(views):
    errors = []
    for pixels, turn in of_family(views, "distance"):
        first, second = named(turn.question, r"of the (.+) and the (.+)\?")
        seen = np.linalg.norm(pixels.middle(first) - pixels.middle(second))
        errors.append(abs(seen - float(turn.answer)) / max(float(turn.answer), 0.2))
    assert len(errors) >= 100 and np.mean(np.array(errors) < turn.tolerance) >= 0.98


def pixel(observation, place):
    height, width = observation.ids.shape
    return int(place.y * height), int(place.x * width)


def test_places_lie_on_the_object_that_the_answer_names(views):
    for pixels, turn in of_family(views, "object_at"):
        row, column = pixel(pixels.observation, turn.places[0])
        (there,) = (o for o in pixels.visible if o.id == pixels.observation.ids[row, column])
        assert turn.answer == f"{there.colour} {there.category}"


def test_pointing_answers_lie_in_a_region_that_is_the_named_object(views):
    asked = of_family(views, "point")
    for pixels, turn in asked:
        (name,) = named(turn.question, r"the (.+)[.?]$")
        assert np.array_equal(turn.region.to_mask(), pixels.mask(name))
        assert turn.region.contains(turn.places[0])
    assert len(asked) >= 100


EXTREMA = {
    "nearest": lambda p, mask: -np.percentile(p.observation.depth.values[mask], 5),
    "farthest": lambda p, mask: np.percentile(p.observation.depth.values[mask], 5),
    "tallest": lambda p, mask: np.ptp(p.world[mask][:, 2]),
    "highest": lambda p, mask: p.world[mask][:, 2].max(),
    "leftmost": lambda p, mask: -np.nonzero(mask)[1].mean(),
    "rightmost": lambda p, mask: np.nonzero(mask)[1].mean(),
}


def test_extrema_agree_with_the_depth_picture(views):
    agree = []
    for pixels, turn in of_family(views, "point_extremum"):
        (value,) = (value for word, value in EXTREMA.items() if word in turn.question)
        masks = [pixels.observation.ids == o.id for o in pixels.visible if o.movable]
        best = max(masks, key=lambda mask: value(pixels, mask))
        agree.append(bool(best[pixel(pixels.observation, turn.places[0])]))
    assert len(agree) >= 60 and np.mean(agree) >= 0.98


def test_empty_spots_are_flat_clear_and_near_the_object_they_are_beside(views):
    asked = of_family(views, "free_space")
    for pixels, turn in asked:
        name, side = named(turn.question, r"within 15 cm of the (.+), (left|right) of it")
        region = turn.region.to_mask()
        spots = pixels.world[region]
        assert np.ptp(spots[:, 2]) < 0.021
        for o in pixels.visible:
            if o.movable:
                assert gap(spots, pixels.world[pixels.observation.ids == o.id]) > 0.029
        to_object = np.linalg.norm(spots[:, None] - pixels.cloud(name)[None], axis=2).min(axis=1)
        assert np.mean(to_object < 0.25) > 0.95
        columns, own = np.nonzero(region)[1], np.nonzero(pixels.mask(name))[1]
        assert columns.max() < own.min() if side == "left" else columns.min() > own.max()
    assert len(asked) >= 60


def test_whether_an_object_fits_agrees_with_what_stands_there(views):
    """Yes: nothing visible stands within the object's half width of the place. No: something does within its reach."""
    agree = []
    for pixels, turn in of_family(views, "fits"):
        (name,) = named(turn.question, r"the (.+?) (?:fit )?at <place")
        place = pixels.world[pixel(pixels.observation, turn.places[0])]
        half = np.sort(np.ptp(pixels.cloud(name)[:, :2], axis=0)) / 2
        others = [
            pixels.world[pixels.observation.ids == o.id]
            for o in pixels.visible
            if not np.array_equal(pixels.observation.ids == o.id, pixels.mask(name)) and o.movable
        ]
        around = np.concatenate(
            [np.linalg.norm(c[:, :2] - place[:2], axis=1)[c[:, 2] > place[2] + 0.01] for c in others]
        )
        agree.append(around.min() > 0.7 * half[0] if turn.answer == "yes" else around.min() < 2 * np.hypot(*half))
    assert len(agree) >= 100 and np.mean(agree) >= 0.95


def test_counts_are_those_of_the_visible_objects(views):
    for pixels, turn in of_family(views, "count"):
        (noun,) = named(turn.question, r"(?:How many|Count the) (.+?)(?: are there\?|\.)$")
        clear = [o for o in pixels.visible if o.movable and o.visible_fraction > 0.05]
        plain = [f"{o.colour} {o.category} object" for o in clear]
        words = [
            re.sub(r"(ches|shes|xes|s)$", lambda m: m[1][:-2] if len(m[1]) > 1 else "", word) for word in noun.split()
        ]
        assert sum(all(word in name.split() for word in words) for name in plain) == int(turn.answer), turn.question
