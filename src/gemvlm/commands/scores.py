"""Commands that score: evaluate, compare, verify, probe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from gemvlm.commands import Device, Model

Models = Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL...")]
Names = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME[,NAME]...")]
Results = Annotated[Positional[str], arg(metavar="FOLDER[,FOLDER]...")]
Place = Annotated[str | None, arg(metavar="PLACE")]
Others = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="MODEL")]
Options = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=VALUE")]


def evaluate(
    models: Models,
    *,
    out: Path,
    benchmark: Names = (),
    data: Place = None,
    protocol: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    gallery: int = 24,
    scenes: int = 100,
    questions: int = 100,
    depth_views: int = 50,
    steps: int = 20,
    guidance: float = 1.0,
    seed: int = 0,
    device: Device = None,
) -> None:
    """Score models: on benchmarks, or one checkpoint of ours on simulated scenes that no training has seen.

    Interrupted, the same command goes on. Without --benchmark it writes scores.json, answers.jsonl and report.html.

    Args:
        models: Checkpoint folders or shipped names; with --benchmark also hf:ID_OR_FOLDER, an endpoint as in
            http://host/v1?model=NAME, random, majority, oracle, blind:MODEL, grey:MODEL.
        out: Folder for the scores.
        benchmark: Names of benchmarks, separated by commas; `gemvlm evaluate nano --out x --benchmark ?` lists them.
        data: Where they are: a folder that holds a folder of each name, or one benchmark's own; a hub id will do.
        protocol: By which rule answers are asked for and judged; the publisher's by default.
        limit: Ask at most so many items of each benchmark, spread evenly.
        retry_failed: Ask again what an endpoint failed to answer.
        gallery: Items to look at on the page.
        scenes: Without --benchmark: number of test scenes, each seen twice.
        questions: Without --benchmark: at most so many of each family, and as many of its shortcut-free headline.
        depth_views: Without --benchmark: views whose generated depth is scored.
        steps: Without --benchmark: integration steps of the depth generator.
        guidance: Without --benchmark: of the depth generator; 1 samples what the model believes.
        seed: Of whatever is drawn.
        device: cpu, cuda or mps; the best there is by default.
    """
    if not models:
        raise ValueError("give at least one model: gemvlm evaluate nano --out scores")
    if not benchmark:
        _evaluate_held_out(models, out, scenes, questions, depth_views, steps, guidance, seed, device)
        return
    from gemvlm.evaluation.benchmarks import BENCHMARKS, open_benchmark, place_of
    from gemvlm.evaluation.evaluate import evaluate_models
    from gemvlm.recipes.suites import SUITES, open_suite

    names = list(dict.fromkeys(name for listed in benchmark for name in listed.split(",")))
    unknown = [name for name in names if name not in SUITES and name not in BENCHMARKS]
    if unknown:
        raise ValueError(f"no benchmark {', '.join(unknown)}; there are {', '.join(sorted({*BENCHMARKS, *SUITES}))}")
    opened = []
    for name in names:
        place = "" if data is None and name == "tabletop_bench" else place_of(name, data)  # that one is made here
        opened.append((open_suite if name in SUITES else open_benchmark)(name, place, protocol))
    page = evaluate_models(
        models, opened, out, device=device, seed=seed, limit=limit, retry_failed=retry_failed, gallery=gallery
    )
    print(page or f"{out}: other processes still have items; the last of them writes the page")


def _evaluate_held_out(
    models: tuple[str, ...],
    out: Path,
    scenes: int,
    questions: int,
    depth_views: int,
    steps: int,
    guidance: float,
    seed: int,
    device: str | None,
) -> None:
    if len(models) > 1:
        raise ValueError(f"{len(models)} models: add --benchmark NAME to compare them, or evaluate them one by one")
    from gemvlm.inference import load
    from gemvlm.recipes.held_out import evaluate_held_out

    evaluate_held_out(
        load(models[0], device),
        out,
        scenes=scenes,
        per_family=questions,
        depth_views=depth_views,
        steps=steps,
        guidance=guidance,
        seed=seed,
    )
    print(out / "report.html")


def compare(first: Results, second: Results, *, out: Path | None = None) -> None:
    """Say whether one model is better than another, item by item, with intervals.

    Args:
        first: Folder of results, or those of several trainings, separated by commas.
        second: Likewise.
        out: Folder for compare.md, compare.json and compare.html.
    """
    from gemvlm.evaluation.compare import compare_runs

    print(compare_runs(first.split(","), second.split(","), out))


def verify(
    model: Model,
    *,
    out: Path,
    base: Annotated[str | None, arg(metavar="MODEL")] = None,
    scenes: int = 16,
    seed: int = 0,
    device: Device = None,
) -> None:
    """Write one page about a checkpoint: what it is, what it may be used for, whether it is better than nothing.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        out: Folder for the page.
        base: The model that it should be better than; the same with random weights by default.
        scenes: Number of scenes that it is asked about.
        seed: Of whatever is drawn.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.recipes.verify_model import verify as verify_checkpoint

    print(verify_checkpoint(model, out, base=base, scenes=scenes, seed=seed, device=device))


def probe(
    model: Model,
    *,
    out: Path,
    frames: Path | None = None,
    registration: Literal["none", "kinect-7scenes"] = "none",
    scenes: int = 120,
    size: int | None = None,
    beside: Others = (),
    random_baseline: bool = True,
    option: Options = (),
    seed: int = 0,
    device: Device = None,
) -> None:
    """Measure how much geometry a model's image states hold, by linear probes, beside what needs no model.

    Args:
        model: Checkpoint folder, shipped name, or any image-text model that transformers opens.
        out: Folder for probe.json, probe.md and probe.html.
        frames: Folder of RGB-D frames; simulated tables by default.
        registration: How depth comes into the colour image of the frames.
        scenes: Number of simulated tables.
        size: Side of the square pictures in pixels.
        beside: Other models in the same table.
        random_baseline: The same model with random weights beside it.
        option: Of a foreign model's processor.
        seed: Of whatever is drawn.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.curation.sources.rgbd_folder import KINECT_7SCENES
    from gemvlm.recipes.probe_model import probe_model

    report = probe_model(
        model,
        out,
        frames=frames,
        registration=KINECT_7SCENES if registration == "kinect-7scenes" else None,
        scenes=scenes,
        size=size,
        beside=beside,
        random_baseline=random_baseline,
        options=_options(option),
        seed=seed,
        device=device,
    )
    print(report.to_markdown())


def _options(words: tuple[str, ...]) -> dict[str, object]:
    """NAME=VALUE pairs; a value is JSON where it can be."""
    import json

    found: dict[str, object] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise ValueError(f"--option {word}: write NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found
