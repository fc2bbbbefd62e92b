"""Every single-view family against a second computation from depth, ids, names and the camera alone.

The generator reads boxes and poses; the oracle unprojects masks. Where hidden surfaces make the two differ, the share
of agreement that is asserted says so.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from gemvlm.curation.questions import CORE_FAMILIES, FAMILIES, write_questions
from gemvlm.curation.questions.wording import plural

pytest.importorskip("mujoco", reason="the tabletop world needs the extra `worlds`")

SCENES = range(5_000, 5_030)


def nearest_m(p, mask):
    return np.linalg.norm(p.world[mask] - p.eye, axis=1).min()


def gap(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2).min()


def sides(cloud):
    """Of the smallest upright box around a cloud, among 18 yaws: its three sides, widened by half a pixel's worth."""
    best = None
    for yaw in np.radians(np.arange(0, 90, 5)):
        axes = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        floor = np.ptp(cloud[:, :2] @ axes, axis=0) + 0.004
        if best is None or floor.prod() < best.prod():
            best = floor
    return (*best, np.ptp(cloud[:, 2]) + 0.004)


def lettered(turn):
    return dict(re.findall(r"([A-D]): (.+?)(?:, (?=[A-D]:)|$)", turn.question))


def noun_in(p, text):
    """The longest noun of a group, singular or plural, that a text holds."""
    nouns = {n for o in p.visible if o.movable for n in (o.category, f"{o.colour} object", "object")}
    found = [n for n in nouns if re.search(rf"\b({re.escape(n)}|{re.escape(plural(n))})\b", text)]
    return max(found, key=len)


def is_mask(turn, mask):
    return np.array_equal(turn.region.to_mask(), mask)


def point_all(p, turn):
    masks = sorted(p.group(noun_in(p, turn.question)), key=lambda mask: np.nonzero(mask)[1].mean())
    found = {r.to_mask().tobytes() for r in turn.regions}
    xs = [place.x for place in turn.places]
    hits = all(region.contains(place) for region, place in zip(turn.regions, turn.places, strict=True))
    return hits and xs == sorted(xs) and found == {mask.tobytes() for mask in masks}


def point_ordinal(p, turn):
    order, noun, side = re.search(r"the (\w+) ([\w ]+) from the (left|right) in the image", turn.question).groups()
    row = sorted(p.group(noun), key=lambda m: np.nonzero(m)[1].mean(), reverse=side == "right")
    return is_mask(turn, row[["first", "second", "third", "fourth", "fifth", "sixth", "seventh"].index(order)])


def point_compared(p, turn):
    text, words = re.search(
        r"(?:the|is the) (.+?) (closer to|farther from|higher|taller|nearest to)", turn.question
    ).groups()
    anchor = p.mask(p.objects_in(turn.question)[-1])
    members = [m for m in p.group(text) if not np.array_equal(m, anchor)]
    value = {
        "closer to": lambda m: nearest_m(p, anchor) - nearest_m(p, m),
        "farther from": lambda m: nearest_m(p, m) - nearest_m(p, anchor),
        "higher": lambda m: p.world[m][:, 2].max() - p.world[anchor][:, 2].max(),
        "taller": lambda m: np.ptp(p.world[m][:, 2]) - np.ptp(p.world[anchor][:, 2]),
        "nearest to": lambda m: -gap(p.world[m], p.world[anchor]),
    }[words]
    best = max(members, key=value)
    return is_mask(turn, best) and (words == "nearest to" or sum(value(m) > 0 for m in members) == 1)


SUPERLATIVES = {
    "largest": lambda p, m: np.prod(sides(p.world[m])),
    "smallest": lambda p, m: -np.prod(sides(p.world[m])),
    "longest": lambda p, m: max(sides(p.world[m])),
    "least tall": lambda p, m: -np.ptp(p.world[m][:, 2]),
    "tallest": lambda p, m: np.ptp(p.world[m][:, 2]),
    "nearest": lambda p, m: -np.percentile(p.observation.depth.values[m], 5),
    "farthest": lambda p, m: np.percentile(p.observation.depth.values[m], 5),
    "top of the image": lambda p, m: -np.nonzero(m)[0].mean(),
    "bottom of the image": lambda p, m: np.nonzero(m)[0].mean(),
}


def point_superlative(p, turn):
    value = next(value for words, value in SUPERLATIVES.items() if words in turn.question)
    return is_mask(turn, max(p.group(noun_in(p, turn.question)), key=lambda mask: value(p, mask)))


def point_between(p, turn):
    """Flat ground, hardly farther than the gap is wide from both together, and neither much nearer than the other."""
    a, b = (p.cloud(name) for name in p.objects_in(turn.question)[-2:])
    region = p.world[turn.region.to_mask()]
    to_a, to_b = (np.linalg.norm(region[:, None] - cloud[None], axis=2).min(axis=1) for cloud in (a, b))
    width = gap(a, b)
    balanced = (np.abs(to_a - to_b) < 0.55 * width).all() and np.median(to_a + to_b) < 1.3 * width
    return balanced and np.ptp(region[:, 2]) < 0.021


def point_on_top(p, turn):
    mask, region = p.mask(p.objects_in(turn.question)[-1]), turn.region.to_mask()
    height = p.world[..., 2]
    top = height[mask].max()
    # the box's top is that of the object, or a little more
    return (
        not (region & ~mask).any()
        and (height[region] > top - 0.015).all()
        and region[mask & (height > top - 0.003)].all()
    )


def point_under(p, turn):
    cloud = p.cloud(p.objects_in(turn.question)[0])
    region = p.world[turn.region.to_mask()]
    low, high = cloud[:, :2].min(axis=0), cloud[:, :2].max(axis=0)
    reach = 0.6 * (high - low).max() + 0.01  # its far half is hidden
    inside = (region[:, :2] > low - reach).all() and (region[:, :2] < high + reach).all()
    return inside and region[:, 2].max() < cloud[:, 2].min() - 0.02


def name_choice(p, turn):
    (there,) = (o for o in p.visible if o.id == p.observation.ids[p.at(turn.places[0])])
    return lettered(turn)[turn.answer] == f"{there.colour} {there.category}"


def count_beside(p, turn):
    anchor = p.mask(p.objects_in(turn.question)[-1])
    others = [m for m in p.group("object") if not np.array_equal(m, anchor)]
    value = next(value for words, value in {
        "left of": lambda m: -np.nonzero(m)[1].mean(),
        "right of": lambda m: np.nonzero(m)[1].mean(),
        "closer to": lambda m: -nearest_m(p, m),
        "farther from": lambda m: nearest_m(p, m),
    }.items() if words in turn.question)  # fmt: skip
    return sum(value(m) > value(anchor) for m in others) == int(turn.answer)


def more_of(p, turn):
    nouns = {plural(n): n for o in p.visible for n in (o.category, f"{o.colour} object")}
    return max(turn.options, key=lambda option: len(p.group(nouns[option]))) == turn.answer


def depth_order(p, turn):
    names = turn.answer.split(", ")
    far_first = turn.question.index("farthest") < turn.question.index("nearest")
    depths = [nearest_m(p, p.mask(name)) for name in names]
    return depths == sorted(depths, reverse=far_first) and set(names) == set(p.objects_in(turn.question))


def nearest_choice(p, turn):
    return min(lettered(turn).items(), key=lambda item: nearest_m(p, p.mask(item[1])))[0] == turn.answer


def neighbour_choice(p, turn):
    anchor = p.cloud(p.objects_in(turn.question)[0])
    return min(lettered(turn).items(), key=lambda item: gap(anchor, p.cloud(item[1])))[0] == turn.answer


def taller(p, turn):
    return max(turn.options, key=lambda o: np.ptp(p.cloud(o)[:, 2])) == turn.answer


def longer(p, turn):
    return max(turn.options, key=lambda o: max(sides(p.cloud(o)))) == turn.answer


def bearing(origin, forward, target):
    """Clockwise from `forward`, seen from above, in degrees."""
    to = (target - origin)[:2]
    return np.degrees(np.arctan2(forward[1] * to[0] - forward[0] * to[1], forward[:2] @ to))


def direction_seen(p, turn):
    names = p.objects_in(turn.question)
    first, second = (p.middle(name) for name in names[:2])
    # two wordings name the anchor first
    thing, anchor = (second, first) if "side of" in turn.question or "looks at" in turn.question else (first, second)
    angle = bearing(anchor, p.observation.view.camera_to_world[:2, 2], thing)
    return ["behind", "right", "in front", "left"][round(angle / 90) % 4] == turn.answer


def _standing(p, turn):
    at, facing, asked = (p.middle(name) for name in p.objects_in(turn.question))
    return bearing(at, (facing - at)[:2], asked)


def direction_standing(p, turn):
    return ["ahead", "right", "behind", "left"][round(_standing(p, turn) / 90) % 4] == turn.answer


def clock_direction(p, turn):
    apart = (_standing(p, turn) - 30 * int(turn.answer) + 180) % 360 - 180
    return abs(apart) < 25


def turn_angle(p, turn):
    angle = _standing(p, turn) * (1 if "right" in turn.question else -1)
    return abs(angle - float(turn.answer)) < 12


def point_depth(p, turn):
    z = p.observation.depth.values[p.at(turn.places[0])]
    return abs(float(turn.answer) * (0.01 if turn.unit == "cm" else 1) / z - 1) < 0.05


def gap_cm(p, turn):
    seen = gap(*(p.cloud(name) for name in p.objects_in(turn.question)[-2:]))
    return abs(seen - float(turn.answer) / 100) < max(0.2 * seen, 0.02)


def _dimension_m(p, turn):
    is_height = re.search(r"tall|height|high|vertically", turn.question)
    cloud = p.cloud(p.objects_in(turn.question)[-1])
    return np.ptp(cloud[:, 2]) + 0.004 if is_height else max(sides(cloud))


def size_cm(p, turn):
    return abs(100 * _dimension_m(p, turn) / float(turn.answer) - 1) < turn.tolerance


def size_choice(p, turn):
    said = {letter: float(text.removesuffix(" cm")) for letter, text in lettered(turn).items()}
    seen = 100 * _dimension_m(p, turn)
    return min(said, key=lambda letter: abs(np.log(said[letter] / seen))) == turn.answer


def gap_passes(p, turn):
    width = float(re.search(r"(\d+) cm", turn.question)[1]) / 100
    return (gap(*(p.cloud(name)[:, :2] for name in p.objects_in(turn.question)[-2:])) > width) == (turn.answer == "yes")


def colour(p, turn):
    return turn.answer == _named(p, turn).colour


def shape(p, turn):
    return turn.answer == _named(p, turn).category


def _named(p, turn):
    if turn.places:
        return next(o for o in p.visible if o.id == p.observation.ids[p.at(turn.places[0])])
    words = turn.question.rstrip("?.").split()
    fitting = [o for o in p.visible if o.movable and (o.category in words or o.colour in words)]
    assert len(fitting) == 1
    return fitting[0]


def box(p, turn):
    rows, columns = np.nonzero(p.mask(p.objects_in(turn.question)[-1]))
    height, width = p.observation.ids.shape
    found = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
    said = turn.places[0]
    return np.allclose(found, (said.x0, said.y0, said.x1, said.y1))


def exists(p, turn):
    name = re.search(r"(?:there|see) an? (.+)\?", turn.question)[1]
    return any(f"{o.colour} {o.category}" == name for o in p.visible) == (turn.answer == "yes")


def point_relation(p, turn):
    noun, relation = re.search(r"Point to the (.+?) (left of|right of|on) ", turn.question).groups()
    anchor = p.mask(p.objects_in(turn.question)[-1])
    column = np.nonzero(anchor)[1].mean()
    members = [m for m in p.group(noun) if not np.array_equal(m, anchor)]
    if relation == "on":
        region = turn.region.to_mask()
        return p.world[region][:, 2].min() > np.median(p.world[anchor][:, 2]) - 0.02
    beside = [m for m in members if (np.nonzero(m)[1].mean() < column) == (relation == "left of")]
    return len(beside) == 1 and is_mask(turn, beside[0])


def occluded(p, turn):
    """Hidden: along a good part of its outline something nearer begins; whole: along next to none of it."""
    mask = p.mask(p.objects_in(turn.question)[-1])
    z, ids = p.observation.depth.values, p.observation.ids
    nearer, outline = 0, 0
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        beyond = np.roll(mask, shift, axis) & ~mask
        behind = np.roll(z, shift, axis)
        outline += beyond.sum()
        nearer += (beyond & (z < behind - 0.01) & (ids > 0)).sum()
    return nearer > 0.04 * outline if turn.answer == "yes" else nearer < 0.25 * outline


CHECKS = {check.__name__: check for check in (
    point_all, point_ordinal, point_compared, point_superlative, point_between, point_on_top, point_under, name_choice,
    count_beside, more_of, depth_order, nearest_choice, neighbour_choice, taller, longer, direction_seen,
    direction_standing, clock_direction, turn_angle, point_depth, gap_cm, size_cm, size_choice, gap_passes, colour,
    shape, box, exists, point_relation, occluded,
)}  # fmt: skip

SHARE = {"size_cm": 0.92, "size_choice": 0.92, "point_compared": 0.96, "occluded": 0.95}
"""Of answers that must agree, where less than 98 %: seen from above, a ball or a ring hides its own lower half."""


@pytest.fixture(scope="module")
def asked(pixels_of):
    from gemvlm.worlds.tabletop import build_scene

    asked = {family: [] for family in CHECKS}
    for seed in SCENES:
        observation = build_scene(seed).observe(0)
        pixels = pixels_of(observation)
        for turn in write_questions(observation, (seed,), CHECKS, turns_per_family=4):
            asked[turn.family].append((pixels, turn))
    return asked


@pytest.mark.parametrize("family", CHECKS)
def test_answers_agree_with_the_depth_picture(asked, family):
    agree = [bool(CHECKS[family](pixels, turn)) for pixels, turn in asked[family]]
    assert len(agree) >= 8
    wrong = [(t.question, t.answer) for (_, t), right in zip(asked[family], agree, strict=True) if not right]
    assert np.mean(agree) >= SHARE.get(family, 0.98), (np.mean(agree), wrong)


def test_every_family_has_a_second_oracle():
    """Here, in test_question_answers.py, or (what rests on what, what moves) in the simulator itself."""
    elsewhere = {"describe", "places", "point", "object_at", "count", "left_right", "above_below", "closer",
                 "nearest_of",
                 "larger", "nearer_to", "perspective", "object_depth", "distance", "point_extremum", "free_space",
                 "fits"}  # fmt: skip
    physics = {"support", "removal_order", "can_lift", "consequence"}
    assert set(FAMILIES) - elsewhere - physics - {"inside"} <= set(CHECKS)
    assert set(CORE_FAMILIES) <= set(FAMILIES)


def test_letters_are_balanced_and_every_option_is_another(asked):
    for family in ("name_choice", "nearest_choice", "neighbour_choice", "size_choice"):
        turns = [turn for _, turn in asked[family]]
        assert all(len(set(lettered(turn).values())) == len(turn.options) for turn in turns)
        letters = Counter(turn.answer for turn in turns if len(turn.options) == 4)
        assert max(letters.values()) < 0.45 * letters.total(), family


def test_numbers_have_units_and_tolerances(asked):
    for family in ("turn_angle", "point_depth", "gap_cm", "size_cm"):
        units = {"m": "metres", "cm": "centimetres", "degrees": "degrees"}
        assert all(units[t.unit] in t.question and t.tolerance and t.kind == "number" for _, t in asked[family])


def test_yes_and_no_come_in_pairs_with_the_same_width(asked):
    turns = [turn for _, turn in asked["gap_passes"]]
    widths = Counter((re.search(r"\d+ cm", t.question)[0], t.answer) for t in turns)
    assert all(widths[width, "yes"] == widths[width, "no"] for width, _ in widths)


def test_every_family_has_several_wordings(asked):
    def template(p, turn):
        text = turn.question.split(" A: ")[0]
        for name in sorted({f"{o.colour} {o.category}" for o in p.visible}, key=len, reverse=True):
            colour, category = name.split()
            text = re.sub(
                rf"\b({colour} )?{plural(category)}\b|\b({colour} )?{category}\b|\b{colour} objects?\b", "X", text
            )
        return re.sub(r"\d+", "N", text)

    for family in set(CHECKS) - set(CORE_FAMILIES):
        assert len({template(p, turn) for p, turn in asked[family]}) >= 3, family
