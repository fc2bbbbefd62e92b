"""Which samples and turns are fit to learn from: pure functions, each of which gives a `Rejection` or None.

Every function looks at one sample only, so any process may run it on any part. A rejection whose `field` is "turns[i]"
concerns that turn, any other the whole sample; `remaining` carries them out. Cost: one pass over the pixels of a frame
and over the text of a turn; no state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from gemvlm.curation.source import Rejection, StageName
from gemvlm.data.conversation import normalise
from gemvlm.sample import PLACE_MARKER, Sample

TURN_FIELD = re.compile(r"turns\[(\d+)\]")


@dataclass(frozen=True)
class FilterRules:
    """Limits. Sides in pixels, contrast as the standard deviation of the grey levels (0..255), lengths in characters.

    `min_depth_valid` and `min_depth_spread` (98th over 2nd percentile of metric depth) are those of the data notes.
    """

    min_side: int = 32
    max_aspect: float = 4.0
    max_pixels: int = 64_000_000
    min_contrast: float = 3.0
    min_depth_valid: float = 0.5
    min_depth_spread: float = 1.05
    max_question: int = 8_000
    max_answer: int = 8_000
    max_option_ratio: float = 4.0


SampleFilter = Callable[[Sample, FilterRules], Rejection | None]
TurnFilter = Callable[[Sample, int, FilterRules], Rejection | None]


def check(sample: Sample, rules: FilterRules | None = None) -> list[Rejection]:
    """Every reason against the sample as a whole; if there is none, every reason against one of its turns."""
    rules = rules or FilterRules()
    found = [rejection for test in SAMPLE_FILTERS if (rejection := test(sample, rules))]
    if found:
        return found
    repeated = {rejection.field: rejection for rejection in duplicate_turns(sample)}
    for i in range(len(sample.turns)):
        first = next(filter(None, (test(sample, i, rules) for test in TURN_FILTERS)), repeated.get(f"turns[{i}]"))
        found += [first] if first else []
    return found


def remaining(sample: Sample, rejections: Iterable[Rejection]) -> Sample | Rejection:
    """The sample without the turns that were rejected, or the rejection that takes it out as a whole.

    A dialogue is whole or nothing: later turns lean on earlier ones. A sample whose every turn is out is out.
    """
    dropped: dict[int, Rejection] = {}
    for rejection in rejections:
        at = TURN_FIELD.fullmatch(rejection.field)
        if at is None:
            return rejection
        dropped[int(at[1])] = rejection
    if not dropped:
        return sample
    first = dropped[min(dropped)]
    if sample.dialogue:
        return replace(first, reason="broken_dialogue", detail=f"one of its turns is out: {first.detail}")
    kept = tuple(turn for i, turn in enumerate(sample.turns) if i not in dropped)
    if not kept:
        return replace(first, reason="no_turns_left", detail=f"all {len(dropped)} turns are out; {first.detail}")
    return replace(sample, turns=kept)


def reject(sample: Sample, reason: str, detail: str, field: str = "", stage: StageName = "filter") -> Rejection:
    """A rejection of this sample, or of one of its parts, that says where it was read."""
    return Rejection(stage, reason, f"sample {sample.id!r}: {detail}", sample.id, sample.provenance.record, field)


def too_small(sample: Sample, rules: FilterRules) -> Rejection | None:
    for i, frame in enumerate(sample.frames):
        height, width = frame.image.shape[:2]
        if min(height, width) < rules.min_side:
            detail = f"frame {i} is {width} x {height} pixels, less than {rules.min_side} on a side"
            return reject(sample, "too_small", detail, f"frames[{i}].image")
    return None


def too_large(sample: Sample, rules: FilterRules) -> Rejection | None:
    for i, frame in enumerate(sample.frames):
        height, width = frame.image.shape[:2]
        if height * width > rules.max_pixels:
            detail = f"frame {i} is {width} x {height} pixels, more than {rules.max_pixels}; resize it"
            return reject(sample, "too_large", detail, f"frames[{i}].image")
    return None


def extreme_aspect(sample: Sample, rules: FilterRules) -> Rejection | None:
    for i, frame in enumerate(sample.frames):
        short, long = sorted(frame.image.shape[:2])
        if short and long > rules.max_aspect * short:
            detail = f"frame {i} is {long / short:.1f} times as long as it is wide, more than {rules.max_aspect:g}"
            return reject(sample, "extreme_aspect", detail, f"frames[{i}].image")
    return None


def blank(sample: Sample, rules: FilterRules) -> Rejection | None:
    """At least half of the frames show next to nothing: black, white, one colour, a faint gradient."""
    flat = [i for i, frame in enumerate(sample.frames) if contrast(frame.image) < rules.min_contrast]
    if flat and 2 * len(flat) >= len(sample.frames):
        detail = f"{len(flat)} of {len(sample.frames)} frames vary by less than {rules.min_contrast:g} grey levels"
        return reject(sample, "blank", detail, f"frames[{flat[0]}].image")
    return None


def contrast(image: UInt8[np.ndarray, "H W 3"]) -> float:
    """The largest standard deviation among the colour channels, in levels of 255; on a grid of some 128 x 128."""
    rows, columns = (max(1, side // 128) for side in image.shape[:2])
    return float(image[::rows, ::columns].std(axis=(0, 1), dtype=np.float32).max()) if image.size else 0.0


def sparse_depth(sample: Sample, rules: FilterRules) -> Rejection | None:
    for i, frame in enumerate(sample.frames):
        if frame.depth is not None and (share := float(frame.depth.valid.mean())) < rules.min_depth_valid:
            detail = f"depth of frame {i} is valid on {share:.0%} of the pixels, less than {rules.min_depth_valid:.0%}"
            return reject(sample, "sparse_depth", detail, f"frames[{i}].depth")
    return None


def flat_depth(sample: Sample, rules: FilterRules) -> Rejection | None:
    """Metric depth of one wall seen straight on, or of a blank frame: nothing to learn, and noise after encoding."""
    for i, frame in enumerate(sample.frames):
        if frame.depth is None or not frame.depth.is_metric or not frame.depth.valid.any():
            continue
        low, high = np.percentile(frame.depth.values[frame.depth.valid], (2, 98))
        if high < rules.min_depth_spread * low:
            detail = f"depth of frame {i} spans only {low:.3f} to {high:.3f} m (2nd to 98th percentile)"
            return reject(sample, "flat_depth", detail, f"frames[{i}].depth")
    return None


def duplicate_turns(sample: Sample) -> list[Rejection]:
    """Turns with the question of an earlier one, about the same places, whatever the answer; none in a dialogue."""
    first: dict[object, int] = {}
    found = []
    for i, turn in enumerate(() if sample.dialogue else sample.turns):
        places = tuple(turn.places[int(marker)] for marker in PLACE_MARKER.findall(turn.question))
        earlier = first.setdefault((normalise(turn.question), places), i)
        if earlier < i:
            found.append(reject(sample, "duplicate_turn", f"turn {i} asks what turn {earlier} asks", f"turns[{i}]"))
    return found


def empty_text(sample: Sample, index: int, rules: FilterRules) -> Rejection | None:
    turn = sample.turns[index]
    for name, text in (("question", turn.question), ("answer", turn.answer)):
        if not text.strip():
            return reject(sample, f"empty_{name}", f"turn {index} has an empty {name}", f"turns[{index}]")
    return None


def overlong_text(sample: Sample, index: int, rules: FilterRules) -> Rejection | None:
    turn = sample.turns[index]
    limits = (("question", turn.question, rules.max_question), ("answer", turn.answer, rules.max_answer))
    for name, text, limit in limits:
        if len(text) > limit:
            detail = f"the {name} of turn {index} has {len(text)} characters, more than {limit}"
            return reject(sample, f"overlong_{name}", detail, f"turns[{index}]")
    return None


def answer_in_question(sample: Sample, index: int, rules: FilterRules) -> Rejection | None:
    """The words give the answer away: a choice named alone among its options, a phrase or a decimal repeated.

    Options of fewer than three letters ("A", "no") and one-word free answers are too common as words to count.
    """
    turn = sample.turns[index]
    asked = PLACE_MARKER.sub(" ", turn.question)
    if turn.kind == "choice":
        if any(len(option) < 3 for option in turn.options):
            return None
        named = [option for option in turn.options if _mentions(asked, option)]
        leaks = named == [turn.answer]
    elif turn.kind == "number":
        leaks = "." in turn.answer and re.search(rf"(?<![\d.]){re.escape(turn.answer)}(?![\d.])", asked) is not None
    else:
        answer = PLACE_MARKER.sub(" ", turn.answer)
        leaks = turn.kind == "text" and len(answer.split()) > 1 and _mentions(asked, answer)
    if not leaks:
        return None
    return reject(sample, "answer_in_question", f"turn {index} names its answer {turn.answer!r}", f"turns[{index}]")


def _mentions(text: str, phrase: str) -> bool:
    """True if the phrase stands in the text as whole words."""
    return f" {_words(phrase)} " in f" {_words(text)} "


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def unfair_options(sample: Sample, index: int, rules: FilterRules) -> Rejection | None:
    """A choice of fewer than two options, of equal ones, or whose answer stands out by its mere length."""
    turn = sample.turns[index]
    if turn.kind != "choice":
        return None
    distinct = {normalise(option) for option in turn.options}
    others = [len(option) for option in turn.options if option != turn.answer]
    if len(turn.options) < 2 or len(distinct) < len(turn.options):
        detail = f"turn {index} offers {len(turn.options)} options, {len(distinct)} of them distinct"
    elif len(turn.answer) > max(20.0, rules.max_option_ratio * max(others)):
        detail = f"the answer of turn {index} is {len(turn.answer) / max(others):.1f} times as long as any other option"
    else:
        return None
    return reject(sample, "unfair_options", detail, f"turns[{index}]")


def place_outside(sample: Sample, index: int, rules: FilterRules) -> Rejection | None:
    """A place that is not in the picture, is not a number, or is a box inside out."""
    for place in sample.turns[index].places:
        values = np.array(list(vars(place).values()))
        if not ((values >= 0) & (values <= 1)).all() or (len(values) == 4 and (values[2:] < values[:2]).any()):
            return reject(sample, "place_outside", f"turn {index} has the place {place}", f"turns[{index}]")
    return None


SAMPLE_FILTERS: tuple[SampleFilter, ...] = (too_small, too_large, extreme_aspect, blank, sparse_depth, flat_depth)
TURN_FILTERS: tuple[TurnFilter, ...] = (empty_text, overlong_text, place_outside, unfair_options, answer_in_question)
