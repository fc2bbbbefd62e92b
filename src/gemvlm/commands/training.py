"""Commands that train: train, adapt, quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from gemvlm.commands import Device, Model

Recipe = Annotated[Positional[str], arg(metavar="RECIPE")]
Frames = Annotated[Positional[Path], arg(metavar="FRAMES")]


def train(
    recipe: Recipe,
    *,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    resume: bool = False,
    data: Annotated[Path | None, arg(metavar="DIR")] = None,
    start: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="[PART=]PLACE")] = (),
    test: Annotated[Path | None, arg(metavar="DIR")] = None,
    sharding: Literal["shard", "hybrid", "replicate"] = "shard",
    workers: int = 0,
    minutes: float | None = None,
    track: Annotated[UseAppendAction[tuple[Literal["wandb", "trackio"], ...]], arg(metavar="{wandb,trackio}")] = (),
    device: Device = None,
    plan: bool = False,
    gpu: Annotated[str | None, arg(metavar="NAME")] = None,
    gpus: int = 1,
) -> None:
    """Carry a training recipe out; the finished model lies in OUT/final.

    Args:
        recipe: Name of the recipe.
        out: Folder of the run.
        resume: Go on with the run that is in the folder.
        data: A set of `gemvlm curate`, or the folder of the recipe's own samples, made there if it lies in OUT;
            OUT/data by default.
        start: Weights to begin with, as a folder or a hub id: qwen=PLACE, sana=PLACE, dc_ae=PLACE for published parts,
            or the place of a whole checkpoint.
        test: A set of other scenes: its scores are logged as training goes on.
        sharding: How several processes hold the weights: a share each, a share each within a machine, or all of them.
        workers: Processes that prepare batches ahead, for each training process.
        minutes: Stop after so long, to be gone on with by --resume.
        track: Send the numbers of the log there as well.
        device: cpu, cuda or mps; the best there is by default.
        plan: Show parameters, operations, memory and time, and load and train nothing.
        gpu: The plan is for GPUs of this name; all that are known by default.
        gpus: The plan is for so many of them.
    """
    from gemvlm import recipes

    chosen = recipes.get(recipe)
    if plan:
        from rich.console import Console

        from gemvlm.recipes.plan import show_plan
        from gemvlm.training.parallel import Sharding

        show_plan(chosen, Console(), gpu, gpus, Sharding(sharding))
        return
    if out is None:
        raise ValueError(f"train {recipe}: add --out DIR, the folder of the run, or --plan to look first")
    if not resume and any(out.glob("step-*")):
        raise ValueError(f"{out}: holds a run already; add --resume to go on with it, or choose another folder")
    from gemvlm.recipes.data import check_place
    from gemvlm.recipes.run import train_recipe
    from gemvlm.runtime import get_log
    from gemvlm.training.loop import Run
    from gemvlm.training.parallel import Sharding

    check_place(chosen, out, data)
    run = Run(out, minutes=minutes, trackers=track)
    if not train_recipe(recipe, out, data, device, run, start, Sharding(sharding), test, workers):
        get_log().info("%s: not finished; the same command with --resume goes on", out)


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
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
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


def quickstart(*, out: Path = Path("quickstart"), images: Path | None = None) -> None:
    """Make data, train a small model, ask it, let it paint depth, and write one report, in about ten minutes.

    Args:
        out: Folder for everything that is made; an interrupted quickstart goes on where it stopped.
        images: Folder of your own images (or RGB-D frames) to answer and paint as well.
    """
    from gemvlm.recipes.first_walk import walk

    walk(images, out)
