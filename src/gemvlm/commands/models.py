"""Commands that use a checkpoint: ask, depth, export-model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gemvlm.commands import Device, Model, Precision

Images = Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")]
ImagesAndQuestion = Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE... QUESTION")]
Formats = Annotated[tuple[Literal["view", "png", "npz"], ...], arg(metavar="{view,png,npz}...")]


def ask(
    model: Model,
    images_and_question: ImagesAndQuestion,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    frames: int = 8,
    stream: bool = False,
    device: Device = None,
    dtype: Precision = "float32",
) -> None:
    """Answer a question about one image, several, a video, or none.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        images_and_question: Image files, videos or folders of frames, and last the question.
        max_new_tokens: The answer is cut after so many tokens.
        temperature: 0 takes the likeliest words; higher draws.
        seed: Of the drawing.
        frames: Of a video so many are shown, evenly spaced.
        stream: Print the answer while it is made.
        device: cpu, cuda or mps; the best there is by default.
        dtype: Of the weights and of the work; bfloat16 takes half the memory and is what GPUs are fast at.
    """
    *images, question = images_and_question or ("",)
    from gemvlm.inference.images import exists, is_video, read_video

    if not question.strip() or exists(question):
        raise ValueError('give the images and then the question: gemvlm ask nano IMAGE "What is on the table?"')
    from gemvlm.inference import Answer, load

    pipeline = load(model, device, dtype)
    shown = [each for image in images for each in (read_video(image, frames) if is_video(image) else [image])]
    if stream:
        pieces = pipeline.ask_stream(shown, question, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        text = ""
        for piece in pieces:
            text += piece
            print(piece, end="", flush=True)
        print()
        answer = Answer.from_text(text, pipeline.coordinates, pieces.finished)
    else:
        answer = pipeline.ask(shown, question, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        print(answer.text)
    if not answer.finished:
        print(f"gemvlm: the answer was cut after {max_new_tokens} tokens; see --max-new-tokens", file=sys.stderr)
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
    solver: Literal["euler", "midpoint", "heun"] = "euler",
    shift: float | None = None,
    ensemble: int = 1,
    combine: Literal["median", "mean"] = "median",
    uncertainty: bool = False,
    format: Formats = (),
    device: Device = None,
    dtype: Precision = "float32",
) -> None:
    """Paint the depth of images and write it to a folder.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        images: Image files.
        out: Folder for what is written: NAME-view.png in colours (near is warm), NAME-depth.png in 16-bit millimetres
            with NAME-depth.json (metric models only), NAME-depth.npz in float32.
        steps: Integration steps of the generator; 4 to 8 do for most pictures.
        guidance: 1 samples what the model believes; more exaggerates what the image says.
        seed: Of the noise that painting starts from.
        solver: euler asks the generator once for each step, midpoint and heun twice.
        shift: Spacing of the steps: 1 is even, more takes smaller ones near noise; the model's own by default.
        ensemble: Paint so many times.
        combine: What is taken of several paintings, for each pixel.
        uncertainty: Write NAME-uncertainty.npz: how far the paintings of the ensemble lie apart.
        format: What to write; all that the model can, by default.
        device: cpu, cuda or mps; the best there is by default.
        dtype: Of the weights and of the work; bfloat16 takes half the memory and is what GPUs are fast at.
    """
    if not images:
        raise ValueError("give at least one image: gemvlm depth nano IMAGE --out depth")
    names = [image.stem for image in images]
    if len(set(names)) < len(names):
        raise ValueError("two images have the same name, so one result would overwrite the other; run them one by one")
    if uncertainty and ensemble < 2:
        raise ValueError(f"--uncertainty needs several paintings to compare: add --ensemble 8 (it is {ensemble})")
    from gemvlm.figure import colour_depth, png_bytes
    from gemvlm.flow import Steps
    from gemvlm.inference import load

    found = load(model, device, dtype).depth_batch(
        images,
        steps=Steps(steps, solver, shift),
        guidance=guidance,
        seed=seed,
        ensemble=ensemble,
        combine=combine,
    )
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
        if uncertainty and prediction.spread is not None:
            path = out / f"{name}-uncertainty.npz"
            prediction.spread.save(path)
            print(path)


def export_model(
    model: Model,
    *,
    to: Literal["qwen3-vl", "gem"],
    out: Path,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
) -> None:
    """Write a checkpoint in another project's layout, into a new folder.

    Args:
        model: Checkpoint folder, owner/model of a hub, or the name of a shipped model.
        to: qwen3-vl is the language model and its vision tower alone, for transformers, vLLM and SGLang; gem the
            layout of the authors' checkpoints, generator and autoencoder included.
        out: New folder.
        dtype: Of the tensors.
    """
    import torch

    from gemvlm.inference.export import export_model as export

    print(export(model, out, to, getattr(torch, dtype)))
