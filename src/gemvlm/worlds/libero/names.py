"""LIBERO's things, places and goals in words.

Categories are those of the suites' `.bddl` files (hf-libero 0.1.4); words and colours follow the instructions and were
checked against pictures. Boxes and bottles of groceries have many colours, so they have none here.
"""

from __future__ import annotations

import re

KINDS: dict[str, tuple[str, str]] = {
    "akita_black_bowl": ("bowl", "black"),
    "alphabet_soup": ("alphabet soup", ""),
    "basket": ("basket", ""),
    "bbq_sauce": ("bbq sauce", ""),
    "black_book": ("book", "black"),
    "butter": ("butter", ""),
    "chefmate_8_frypan": ("frying pan", ""),
    "chocolate_pudding": ("chocolate pudding", ""),
    "cookies": ("cookie box", ""),
    "cream_cheese": ("cream cheese", ""),
    "desk_caddy": ("caddy", ""),
    "flat_stove": ("stove", ""),
    "floor": ("floor", ""),
    "glazed_rim_porcelain_ramekin": ("ramekin", ""),
    "ketchup": ("ketchup", ""),
    "kitchen_table": ("table", ""),
    "living_room_table": ("table", ""),
    "microwave": ("microwave", ""),
    "milk": ("milk", ""),
    "moka_pot": ("moka pot", ""),
    "orange_juice": ("orange juice", ""),
    "plate": ("plate", ""),
    "porcelain_mug": ("mug", "white"),
    "red_coffee_mug": ("mug", "red"),
    "salad_dressing": ("salad dressing", ""),
    "study_table": ("desk", ""),
    "table": ("table", ""),
    "tomato_sauce": ("tomato sauce", ""),
    "white_cabinet": ("cabinet", "white"),
    "white_yellow_mug": ("mug", "yellow and white"),
    "wine_bottle": ("wine bottle", ""),
    "wine_rack": ("wine rack", ""),
    "wooden_cabinet": ("wooden cabinet", ""),
}
PARTS = {
    "cabinet_top": "top drawer",
    "cabinet_middle": "middle drawer",
    "cabinet_bottom": "bottom drawer",
    "microdoorroot": "microwave door",
    "button": "stove knob",
}
"""Bodies of fixtures that move by themselves, named by the end of their names."""

_REGIONS = {
    "top_region": "top drawer of the {}",
    "middle_region": "middle drawer of the {}",
    "bottom_region": "bottom drawer of the {}",
    "top_side": "top of the {}",
    "cook_region": "{}",
    "contain_region": "{}",
    "heating_region": "{}",
    "back_contain_region": "back compartment of the {}",
}
_SPOTS = {
    "main_table_stove_front_region": "in front of the stove",
    "living_room_table_plate_right_region": "to the right of the plate",
}
_ON_A_RACK = "wine_rack_1_top_region"


def instruction(task: str) -> str:
    """What the official evaluation tells a policy: the task's name without its scene (the `.bddl` text differs)."""
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", task).replace("_", " ")


def category_of(name: str) -> str:
    """`akita_black_bowl` of `akita_black_bowl_1`; a name without a number is its own category."""
    return re.sub(r"_\d+$", "", name)


def thing_words(name: str) -> str:
    category, colour = KINDS[category_of(name)]
    return f"{colour} {category}".strip()


def place_words(name: str) -> str:
    """A region or a thing: "top drawer of the cabinet", "plate". KeyError for a region that no goal names."""
    if name == _ON_A_RACK:
        return "wine rack"
    match = re.fullmatch(r"(.+_\d+)_([a-z_]+)", name)
    if match is None:
        return thing_words(name)
    return _REGIONS[match[2]].format(KINDS[category_of(match[1])][0].removeprefix("wooden "))


def goal_words(goal: tuple[str, ...]) -> str:
    """A goal as an order: ("on", "plate_1", ...) is "put the plate on ..."."""
    predicate, subject, *rest = goal
    if predicate in ("on", "in"):
        where = _SPOTS.get(rest[0]) or f"{predicate} the {place_words(rest[0])}"
        return f"put the {thing_words(subject)} {where}"
    verb = {"open": "open", "close": "close", "turnon": "turn on", "turnoff": "turn off"}[predicate]
    return f"{verb} the {place_words(subject)}"


def part_of(name: str) -> str | None:
    """The body that moves when a region or a fixture is opened, closed or turned on; None for a thing without parts."""
    if name.startswith("microwave"):
        return "microwave_1_microdoorroot"
    if name.startswith("flat_stove"):
        return "flat_stove_1_button"
    match = re.fullmatch(r"((?:white|wooden)_cabinet_\d+)_(top|middle|bottom)_region", name)
    return match and f"{match[1]}_cabinet_{match[2]}"
