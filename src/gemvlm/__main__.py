"""The command line: `gemvlm COMMAND ...`.

What a command needs is imported once it runs, and not before: nobody waits for torch to read a page of help.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro import cli
from tyro.conf import Positional, UseAppendAction, arg

HELP = """\
gemvlm: an embodied vision-language model that learns from generating depth

usage: gemvlm COMMAND ...        gemvlm COMMAND --help tells the options of a command

  ask MODEL IMAGE... QUESTION    answer a question about one image or several
  depth MODEL IMAGE... --out DIR paint the depth of images: colours, 16-bit PNG, .npz
  train RECIPE --out DIR         carry a training recipe out, or go on with it
  adapt MODEL FRAMES --out DIR   adapt a model to RGB-D frames of one place, tested on the last of them
  evaluate MODEL --out DIR       score a model on scenes it has never seen, beside blind baselines
  quickstart                     the whole walk in minutes: data, training, answers, depth, report
  curate RECIPE --out DIR        make a set of samples: sources, depth, questions, filters, funnel
  inspect DIR                    count, judge and show a set on one page
  export-data DIR --to FORMAT    write a set in another project's layout
  encode DIR --checkpoint MODEL  keep the latents of a set's depth beside it
  fingerprint DIR --out FILE     what `curate --benchmark` needs to keep a benchmark out of a set

MODEL is a folder that `train` wrote, or the name of a shipped model: nano

  gemvlm ask nano desk.png "Which is closer, the mug or the book?"
  gemvlm depth nano desk.png --out depth

  --help     this page
  --version  the version
"""

Model = Annotated[Positional[str], arg(metavar="MODEL")]
Images = Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")]
ImagesAndQuestion = Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE... QUESTION")]
Frames = Annotated[Positional[Path], arg(metavar="FRAMES")]
Recipe = Annotated[Positional[str], arg(metavar="RECIPE")]
Formats = Annotated[tuple[Literal["view", "png", "npz"], ...], arg(metavar="{view,png,npz}...")]
Folder = Annotated[Positional[Path], arg(metavar="DIR")]
Roots = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=FOLDER")]
Benchmarks = Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="FILE")]
Licences = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="ID")]
Device = Annotated[str | None, arg(metavar="NAME")]


def ask(
    model: Model,
    images_and_question: ImagesAndQuestion,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    device: Device = None,
) -> None:
    """Answer a question about one image or several.

    Args:
        model: Checkpoint folder, or the name of a shipped model.
        images_and_question: Image files, and last the question.
        max_new_tokens: The answer is cut after so many tokens.
        temperature: 0 takes the likeliest words; higher draws.
        seed: Of the drawing.
        device: cpu, cuda or mps; the best there is by default.
    """
    *images, question = images_and_question or ("",)
    if not images or Path(question).is_file():
        raise ValueError('give at least one image and then the question: gemvlm ask nano IMAGE "What is on the table?"')
    from gemvlm.inference import load

    pipeline = load(model, device)
    answer = pipeline.ask(images, question, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    print(answer.text)
    for point in answer.points:
        print(f"point  x {point.x:.3f}  y {point.y:.3f}")
    for box in answer.boxes:
        print(f"box    x {box.x0:.3f} to {box.x1:.3f}  y {box.y0:.3f} to {box.y1:.3f}")


def depth(
    model: Model,
    images: Images,
    *,
    out: Path,
    steps: int = 30,
    guidance: float = 1.0,
    seed: int = 0,
    ensemble: int = 1,
    format: Formats = (),
    device: Device = None,
) -> None:
    """Paint the depth of images and write it to a folder.

    Args:
        model: Checkpoint folder, or the name of a shipped model.
        images: Image files.
        out: Folder for what is written: NAME-view.png in colours (near is warm), NAME-depth.png in 16-bit millimetres
            with NAME-depth.json (metric models only), NAME-depth.npz in float32.
        steps: Integration steps of the generator.
        guidance: 1 samples what the model believes; more exaggerates what the image says.
        seed: Of the noise that painting starts from.
        ensemble: Median of so many paintings.
        format: What to write; all that the model can, by default.
        device: cpu, cuda or mps; the best there is by default.
    """
    if not images:
        raise ValueError("give at least one image: gemvlm depth nano IMAGE --out depth")
    names = [image.stem for image in images]
    if len(set(names)) < len(names):
        raise ValueError("two images have the same name, so one result would overwrite the other; run them one by one")
    from gemvlm.figure import colour_depth, png_bytes
    from gemvlm.inference import load

    found = load(model, device).depth_batch(images, steps=steps, guidance=guidance, seed=seed, ensemble=ensemble)
    out.mkdir(parents=True, exist_ok=True)
    for name, prediction in zip(names, found, strict=True):
        result = prediction.depth
        for kind in format or (("view", "png", "npz") if result.is_metric else ("view", "npz")):
            path = out / {"view": f"{name}-view.png"}.get(kind, f"{name}-depth.{kind}")
            if kind == "view":
                path.write_bytes(png_bytes(colour_depth(result.values, result.valid)))
            else:
                result.save(path)
            print(path)


def train(
    recipe: Recipe,
    *,
    out: Path,
    resume: bool = False,
    data: Path | None = None,
    device: Device = None,
) -> None:
    """Carry a training recipe out; the finished model lies in OUT/final.

    Args:
        recipe: Name of the recipe.
        out: Folder of the run.
        resume: Go on with the run that is in the folder.
        data: A set of `gemvlm curate`, or the folder of the recipe's own samples, made there if missing; OUT/data by
            default.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm import recipes

    recipes.get(recipe)
    if not resume and any(out.glob("step-*")):
        raise ValueError(f"{out}: holds a run already; add --resume to go on with it, or choose another folder")
    from gemvlm.recipes.run import train_recipe

    train_recipe(recipe, out, data, device)


def adapt(
    model: Model,
    frames: Frames,
    *,
    out: Path,
    registration: Literal["none", "kinect-7scenes"] = "none",
    up: tuple[float, float, float] | None = None,
    test_frames: int | None = None,
    steps: int | None = None,
    first: int | None = None,
    minutes: float | None = None,
    device: Device = None,
) -> None:
    """Adapt a model to RGB-D frames of one place, and test it on the last of them beside copies of the others.

    The model lies in OUT/run/final, its scores in OUT/report.html; the same command goes on where it stopped.

    Args:
        model: Checkpoint folder, or the name of a shipped model.
        frames: Folder with NAME.color.jpg, NAME.depth.png, NAME.pose.txt, in the order of time by name, and
            camera-intrinsics.txt.
        out: Folder for everything that is made.
        registration: How depth comes into the colour image: it lies there already, or as in 7-Scenes.
        up: Upward direction of the world's axes; adds questions about horizontal and vertical surfaces.
        test_frames: So many frames, the last in time, are the test.
        steps: Training steps.
        first: Use only so many frames, to choose settings without a look at the others.
        minutes: Stop training after so long; the same command goes on with it.
        device: cpu, cuda or mps; the best there is by default.
    """
    from dataclasses import replace

    from gemvlm.curation.sources.rgbd_folder import KINECT_7SCENES
    from gemvlm.recipes import real_frames

    recipe = real_frames.ROOM
    if steps is not None:
        recipe = replace(recipe, stage=replace(recipe.stage, steps=steps))
    if test_frames is not None:
        recipe = replace(recipe, test_frames=test_frames)
    page = real_frames.adapt(
        model,
        frames,
        out,
        registration=KINECT_7SCENES if registration == "kinect-7scenes" else None,
        up=up,
        first=first,
        recipe=recipe,
        minutes=minutes,
        device=device,
    )
    print(page or f"{out}: not finished after {minutes} minutes; the same command goes on")


def evaluate(
    model: Model,
    *,
    out: Path,
    scenes: int = 100,
    questions: int = 100,
    depth_views: int = 50,
    steps: int = 20,
    guidance: float = 1.0,
    seed: int = 0,
    device: Device = None,
) -> None:
    """Score a model on simulated scenes that no training has seen; writes scores.json, answers.jsonl and report.html.

    Args:
        model: Checkpoint folder, or the name of a shipped model.
        out: Folder for the scores.
        scenes: Number of test scenes, each seen twice.
        questions: At most so many of each family, and as many of its shortcut-free headline.
        depth_views: Views whose generated depth is scored.
        steps: Integration steps of the depth generator.
        guidance: Of the depth generator; 1 samples what the model believes.
        seed: Of the noise that painting starts from.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.inference import load
    from gemvlm.recipes.held_out import evaluate_held_out

    pipeline = load(model, device)
    evaluate_held_out(
        pipeline,
        out,
        scenes=scenes,
        per_family=questions,
        depth_views=depth_views,
        steps=steps,
        guidance=guidance,
        seed=seed,
    )
    print(out / "report.html")


def quickstart(*, out: Path = Path("quickstart"), images: Path | None = None) -> None:
    """Make data, train a small model, ask it, let it paint depth, and write one report, in about ten minutes.

    Args:
        out: Folder for everything that is made; an interrupted quickstart goes on where it stopped.
        images: Folder of your own images (or RGB-D frames) to answer and paint as well.
    """
    from gemvlm.recipes.first_walk import walk

    walk(images, out)


def curate(
    recipe: Recipe,
    *,
    out: Path,
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
        out: New folder for the set; the work in progress lies beside it.
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

    plan, console = plan_of(recipe, root, benchmark, limit, depth_teacher, licence, annotator), Console()
    workers = engine_of(engine, processes or available_cores(), ray_address)
    if plan_only or plan.missing():
        show_plan(plan, console)
    if not plan_only:
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


def encode(folder: Folder, *, checkpoint: str, kind: Literal["depth", "rgb"] = "depth", device: Device = None) -> None:
    """Run every frame's target through a model's autoencoder once; training then reads the latents.

    Args:
        folder: Folder of a set; the latents go into it, with the stamp of what made them.
        checkpoint: Checkpoint folder, or the name of a shipped model.
        kind: What is encoded: depth, or the image itself.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.curation.encode import Codec
    from gemvlm.curation.encode import encode as encode_set
    from gemvlm.runtime import default_device

    print(encode_set(folder, Codec.from_checkpoint(checkpoint, kind), device=str(default_device(device))))


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


COMMANDS: dict[str, Callable[..., None]] = {
    "ask": ask,
    "depth": depth,
    "train": train,
    "adapt": adapt,
    "evaluate": evaluate,
    "quickstart": quickstart,
    "curate": curate,
    "inspect": inspect,
    "export-data": export_data,
    "encode": encode,
    "fingerprint": fingerprint,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 if it went well, 2 after one line on standard error if the input was wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        from gemvlm import __version__

        print(f"gemvlm {__version__}")
        return 0
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            raise ValueError(f"unknown command {name!r}; there are {', '.join(COMMANDS)} (see gemvlm --help)")
        cli(COMMANDS[name], args=rest, prog=f"gemvlm {name}")
    except (ValueError, OSError, FloatingPointError) as error:
        return _refuse(str(error))
    except ImportError as error:
        if (error.name or "").split(".")[0] == "gemvlm":
            raise
        if isinstance(error, ModuleNotFoundError):
            return _refuse(f"{error.name} is not installed; pip install 'gemvlm[worlds,curate]'")
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _refuse(message: str) -> int:
    print("gemvlm: " + " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
