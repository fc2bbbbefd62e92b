"""A name on a command line → who answers.

    nano                                              a shipped checkpoint, or a folder that `gemvlm train` wrote
    hf:Qwen/Qwen3-VL-2B-Instruct                      any Hugging Face image-text model, by hub id or folder
    http://localhost:8000/v1?model=NAME&convention=thousand    any OpenAI-compatible endpoint
    random   majority   oracle                        baselines
    blind:MODEL   grey:MODEL                          the same model with images withheld, or grey

Options follow as in an address: `?convention=thousand` (or hundred, fraction, pixel; `-yx` if y comes first), `model`,
`revision`, `dtype`, `batch`, `timeout` (seconds), `tries`, `name` (in tables).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args
from urllib.parse import parse_qsl

from gemvlm.evaluation.answerers.answerer import Answerer
from gemvlm.evaluation.answerers.baselines import Baseline, BaselineKind, Blind
from gemvlm.evaluation.answerers.endpoint import EndpointAnswerer, Patience
from gemvlm.evaluation.benchmark import Convention, Unit
from gemvlm.model.card import CARD_FILE

OPTIONS = {
    "gem": {"name", "batch"},
    "hf": {"name", "batch", "convention", "revision", "dtype"},
    "endpoint": {"name", "batch", "convention", "model", "timeout", "tries"},
    "baseline": {"name", "convention"},
}


def open_answerer(model: str, device: str | None = None, seed: int = 0) -> Answerer:
    """Who `model` names (see above). ValueError for what can't be loaded, and for options that it has not."""
    opening, colon, rest = model.partition(":")
    if colon and opening in ("blind", "grey"):
        return Blind(open_answerer(rest, device, seed), "withheld" if opening == "blind" else "grey")
    place, _, query = model.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    convention = read_convention(options["convention"]) if "convention" in options else None
    if place in get_args(BaselineKind):
        _check(model, options, "baseline")
        found: Answerer = Baseline(cast(BaselineKind, place), convention, seed)
    elif opening in ("http", "https"):
        _check(model, options, "endpoint")
        found = _endpoint(place, options, convention)
    elif opening == "hf" or _is_stock(Path(place)):
        _check(model, options, "hf")
        from gemvlm.evaluation.answerers.huggingface import HuggingFaceAnswerer

        place = place.removeprefix("hf:")
        revision, dtype = options.get("revision"), options.get("dtype", "auto")
        found = HuggingFaceAnswerer(
            place, options.get("name", place), convention, revision=revision, dtype=dtype, device=device
        )
    else:
        _check(model, options, "gem")
        from gemvlm.evaluation.answerers.gem import GemAnswerer
        from gemvlm.inference import load

        found = GemAnswerer(load(place, device), options.get("name", place))
    found.name = options.get("name", found.name)
    found.batch_size = int(_number(options, "batch", float(found.batch_size)))
    return found


def read_convention(text: str) -> Convention:
    """ "thousand", or "thousand-yx" where y comes first. ValueError for another word."""
    unit, _, axes = text.partition("-")
    if unit not in get_args(Unit) or axes not in ("", "xy", "yx"):
        raise ValueError(f"convention {text!r} is unknown; choose from {', '.join(get_args(Unit))}, -yx if y is first")
    return Convention(cast(Unit, unit), "yx" if axes == "yx" else "xy")


def _endpoint(url: str, options: dict[str, str], convention: Convention | None) -> EndpointAnswerer:
    if "model" not in options or convention is None:
        raise ValueError(
            f"{url}: an endpoint doesn't tell which model to ask nor how it writes coordinates; "
            "add ?model=NAME&convention=thousand (or hundred, fraction, pixel; -yx where y comes first)"
        )
    usual = Patience()
    patience = Patience(
        timeout_s=_number(options, "timeout", usual.timeout_s), tries=int(_number(options, "tries", float(usual.tries)))
    )
    return EndpointAnswerer(url, options["model"], options["model"], convention, patience=patience)


def _is_stock(folder: Path) -> bool:
    """A folder in the Hugging Face layout that is none of ours."""
    return (folder / "config.json").is_file() and not (folder / CARD_FILE).is_file()


def _check(model: str, options: dict[str, str], kind: str) -> None:
    if unknown := sorted(set(options) - OPTIONS[kind]):
        raise ValueError(
            f"{model}: option {', '.join(unknown)} is unknown; there are {', '.join(sorted(OPTIONS[kind]))}"
        )


def _number(options: dict[str, str], name: str, usual: float) -> float:
    try:
        value = float(options.get(name, usual))
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError(f"option {name}={options[name]}: give a positive number")
    return value
