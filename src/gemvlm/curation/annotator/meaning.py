"""Does a rephrased text still say the same? Read again by rules, word by word; when in doubt, it does not.

What must survive, in order: the slots (names of things, colours, letters, numbers, places) and, among themselves, the
relations (left, closer, above, not, ...). What must survive in any order: frames (in the image, to the camera, above
the floor, your) and units. What may change: everything in a closed vocabulary of words that only ask. Any other new
word is refused, and so is a question that has become one of yes and no, or has stopped being one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gemvlm.curation.refusal import Refusal
from gemvlm.sample import PLACE_MARKER

_TOKEN = re.compile(r"<place:\d+>|\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)?")


def _table(groups: str) -> dict[str, str]:
    """Each word of a line means the line's first."""
    return {word: line.split()[0] for line in groups.strip().splitlines() for word in line.split()}


RELATIONS = _table("""
    left leftmost leftward
    right rightmost rightward
    closer nearer close near nearby closest nearest
    farther further far away farthest furthest
    above over higher highest
    below under beneath underneath lower lowest
    behind
    front
    on upon atop
    inside within
    outside
    between
    beside
    touching touches touch
    facing face faces
    standing stand
    larger bigger largest biggest large big
    smaller smallest small
    taller tallest tall
    shorter shortest short
    longer longest long
    wider widest wide
    more most
    less least fewer fewest
    first
    before
    last
    after
    hidden hide hides occluded
    not no without except never neither nor isn't doesn't cannot can't don't aren't
    all every each
    any some
    only
    lift lifted lifting
    remove removed removing taken
    move moves moved moving
    fit fits room
    rest rests resting
    empty free
    apart distance
    horizontal
    vertical
    clockwise
    counterclockwise
""")
FRAMES = _table("""
    image picture photo photograph
    camera
    floor ground
    reality
    your you
    visible
    centre centres center centers middle
""")
UNITS = _table("""
    metres metre meters meter m
    centimetres centimetre centimeters centimeter cm
    degrees degree
    seconds s
""")
_ASKING = """
    a an the this that these those of to in at by for from with and or if is are was were be do does did can could would
    will should it its there here which what where who how many much one ones among kind sort type name names tell
    me us please say state give identify determine decide choose select pick point mark show indicate locate find spot
    place location position seen see shown shows displayed looks look looking object objects thing things item items
    i we my has have located situated lies sits positioned answer question following as than when count number total
    describe list also let's let find exact really actually truly both either them they relative respect compared
    comparing out being so then now compute estimate measure measured correct
    depth color colour part whose side
"""
ASKING = frozenset(_ASKING.split())
"""Words that only ask: they may come and go."""
_AUXILIARIES = "is are was were do does did can could would will should has have"
AUXILIARIES = frozenset(_AUXILIARIES.split())
COUNTING = ("how many", "count", "number of")


@dataclass(frozen=True)
class Meaning:
    """A text taken apart."""

    slots: tuple[str, ...]
    relations: tuple[str, ...]
    frames: frozenset[str]
    units: frozenset[str]
    asks_yes_no: bool
    counts: bool

    @classmethod
    def of(cls, text: str, known: Iterable[str] = ()) -> Meaning:
        """`known` are words that are slots here even where they would only ask elsewhere."""
        words = [_word(token) for token in _TOKEN.findall(text)]
        known = frozenset(known)
        slots = tuple(word for word in words if word in known or not _is_common(word))
        others = [word for word in words if word not in known]
        lowered = " ".join(text.lower().split())
        units = frozenset(UNITS[word] for word in others if word in UNITS)
        return cls(
            slots,
            tuple(RELATIONS[word] for word in others if word in RELATIONS),
            frozenset(FRAMES[word] for word in others if word in FRAMES),
            units,
            _is_yes_no(text),
            not units and any(phrase in lowered for phrase in COUNTING),
        )


def changed(original: str, rephrased: str, options: Iterable[str] = ()) -> Refusal | None:
    """What of the original's meaning the rephrased text has lost or gained, or None if nothing.

    `options` are the answers that the question offers: their words are slots.
    """
    known = [_word(token) for option in options for token in _TOKEN.findall(option)]
    before, after = Meaning.of(original, known), Meaning.of(rephrased, known)
    places = [[slot for slot in one.slots if slot.startswith("<place:")] for one in (before, after)]
    if places[0] != places[1]:
        return Refusal("places", f"places were {places[0]}, now {places[1]}")
    if "<place" in re.sub(r"<place:\d+>", "", rephrased):
        return Refusal("places", "a marker of a place is broken")
    if before.slots != after.slots:
        return Refusal("slots", f"names and numbers were {before.slots}, now {after.slots}")
    if before.relations != after.relations:
        return Refusal("relations", f"relations were {before.relations}, now {after.relations}")
    if before.frames != after.frames or before.units != after.units:
        was, now = (sorted(one.frames | one.units) for one in (before, after))
        return Refusal("frame", f"frames and units were {was}, now {now}")
    if before.asks_yes_no != after.asks_yes_no or before.counts != after.counts:
        return Refusal("kind", "another kind of answer is asked for")
    return None


def _word(token: str) -> str:
    """Capitals tell the option A from the article; other words are lower case."""
    return token if len(token) == 1 and token.isupper() and token != "I" else token.lower()


def _is_common(word: str) -> bool:
    return word in RELATIONS or word in FRAMES or word in UNITS or word in ASKING


def _is_yes_no(text: str) -> bool:
    """The last sentence, or a part of it after a comma, begins with an auxiliary: "is it ...", "if so, can it ..."."""
    bare = PLACE_MARKER.sub(" ", text.lower())
    sentences = [part for part in re.split(r"[.?!:;]\s*", bare) if part.strip()]
    parts = [part.split() for part in sentences[-1].split(",") if part.strip()] if sentences else []
    return any(part[0] in AUXILIARIES for part in parts)
