"""Commands that make sets of samples: curate, inspect, export-data, encode, fingerprint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from gemvlm.commands import Device, Folder

Plan = Annotated[Positional[str], arg(metavar="PLAN")]
Roots = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=FOLDER")]
Benchmarks = Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="FILE")]
Licences = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="ID")]


def curate(
    recipe: Plan,
    *,
    out: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: Annotated[str | None, arg(metavar="ADDRESS")] = None,
    limit: int | None = None,
    processes: int | None = None,
    root: Roots = (),
    benchmark: Benchmarks = (),
    depth_teacher: Annotated[str | None, arg(metavar="KIND:FOLDER")] = None,
    annotator: Annotated[str | None, arg(metavar="MODEL@URL")] = None,
    licence: Licences = (),
    plan_only: bool = False,
) -> None:
    """Make a set of samples from a plan's sources. Interrupted, the same command goes on; its bytes stay the same.

    Args:
        recipe: Name of the plan: tabletop_100k, robot_worlds, gem_4m.
        out: New folder for the set; the work in progress lies beside it. Needed unless the plan alone is shown.
        engine: Processes of this machine, or Ray Data.
        ray_address: A Ray cluster; one is started on this machine by default.
        limit: At most so many samples.
        processes: Worker processes; all cores by default.
        root: NAME=FOLDER for each data set that you have; a hub id will do as well.
        benchmark: Files of `gemvlm fingerprint`: nothing in the set may match the benchmarks that they are of.
        depth_teacher: Gives depth to frames that have none: depth-anything-v2, depth-pro or depth-anything-3 and the
            folder of its weights, or gem and a checkpoint.
        annotator: Puts questions in other words, which are read again and refused unless they ask the same: a model of
            any OpenAI-compatible endpoint, as in qwen@http://localhost:8000/v1; its key is read from OPENAI_API_KEY.
        licence: SPDX ids to be allowed besides the open ones; "unknown" allows what says nothing.
        plan_only: Show the plan and what of it is at hand, and make nothing.
    """
    from rich.console import Console

    from gemvlm.curation.engine import engine_of
    from gemvlm.recipes.curate import command_of, make_set, plan_of, show_plan
    from gemvlm.runtime import available_cores

    if out is None and not plan_only:
        raise ValueError("curate: add --out DIR, a new folder for the set, or --plan-only to see the plan alone")
    plan, console = plan_of(recipe, root, benchmark, limit, depth_teacher, licence, annotator), Console()
    workers = engine_of(engine, processes or available_cores(), ray_address)
    if plan_only or plan.missing():
        show_plan(plan, console)
    if out is not None and not plan_only:
        make_set(plan, out, workers, command_of(recipe, plan, limit, licence), console)


def inspect(
    folder: Folder,
    *,
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
    examples: int = 240,
    seed: int = 0,
) -> None:
    """Write one HTML page about a set: counts, balances, depth, shortcuts, licences, losses, and samples to look at.

    Args:
        folder: Folder of a set.
        out: The page; FOLDER.html by default.
        examples: So many samples to look at, drawn evenly from families and sources.
        seed: Of the drawing.
    """
    from gemvlm.recipes.inspect_set import inspect_set

    print(inspect_set(folder, out or folder.with_name(folder.name + ".html"), examples, seed))


def export_data(
    folder: Folder,
    *,
    to: Literal["gem", "qwen", "lerobot"],
    out: Path,
    media: Path | None = None,
) -> None:
    """Write a set in another project's layout.

    Args:
        folder: Folder of a set.
        to: GEM's own layout, plain Qwen fine-tuning data, or LeRobot episodes.
        out: New folder for the files.
        media: Folder that samples with videos were imported from: their files are copied.
    """
    from gemvlm.curation.export import export
    from gemvlm.shards import ShardReader

    print(f"{out}: {export(ShardReader(folder), out, to, media)} records")


def encode(
    folder: Folder,
    *,
    checkpoint: str | None = None,
    recipe: str | None = None,
    autoencoder: Annotated[str | None, arg(metavar="PLACE")] = None,
    kind: Literal["depth", "rgb"] = "depth",
    device: Device = None,
) -> None:
    """Run every frame's target through an autoencoder once; training then reads the latents.

    Args:
        folder: Folder of a set; the latents go into it, with the stamp of what made them.
        checkpoint: Checkpoint folder, or the name of a shipped model, whose autoencoder and encoding are used.
        recipe: In place of a checkpoint: the recipe that will be trained, with --autoencoder.
        autoencoder: The published autoencoder that the recipe will begin with: DC-AE's folder or hub id, or Sana's.
        kind: What is encoded: depth, or the image itself.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.curation.encode import Codec
    from gemvlm.curation.encode import encode as encode_set
    from gemvlm.runtime import default_device

    if checkpoint is not None and recipe is None and autoencoder is None:
        codec = Codec.from_checkpoint(checkpoint, kind)
    elif checkpoint is None and recipe is not None and autoencoder is not None:
        from gemvlm import recipes
        from gemvlm.recipes.data import published_codec

        codec = published_codec(recipes.get(recipe), autoencoder, kind)
    else:
        raise ValueError("encode: give --checkpoint MODEL, or --recipe NAME with --autoencoder PLACE")
    print(encode_set(folder, codec, device=str(default_device(device))))


def fingerprint(
    folder: Folder,
    *,
    out: Annotated[Path, arg(metavar="FILE")],
    name: str | None = None,
    scenes: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> None:
    """Write what is needed to know a benchmark by: hashes of its pictures and questions, and ids of its scenes.

    Args:
        folder: Folder of the benchmark: pictures, and JSON, JSONL, CSV, TSV or Parquet with questions and scenes.
        out: The file, for `gemvlm curate --benchmark FILE`.
        name: What rejections call the benchmark; the folder's name by default.
        scenes: Text file with one more scene id to a line, of those that the folder does not tell.
    """
    from gemvlm.curation.overlap import make_fingerprints

    ids = [] if scenes is None else [line.strip() for line in scenes.read_text().splitlines() if line.strip()]
    prints = make_fingerprints(folder, name or folder.resolve().name, ids)
    prints.save(out)
    for line in prints.unreadable:
        print(f"not protected: {line}", file=sys.stderr)
    print(f"{out}: {len(prints.files)} pictures, {len(prints.questions)} questions, {len(prints.scenes)} scenes")
