"""The command line: `gemvlm COMMAND ...`. Each command is a function of `commands/`, imported once it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

HELP = """\
gemvlm: an embodied vision-language model that learns from generating depth

usage: gemvlm COMMAND ...        gemvlm COMMAND --help tells the options of a command

  ask MODEL [IMAGE...] QUESTION  answer a question about images, a video, or none
  point MODEL IMAGE EXPRESSION   point to what an expression names
  box MODEL IMAGE EXPRESSION     box it
  plan MODEL IMAGE... GOAL       list the steps that remain toward a goal
  depth MODEL IMAGE... --out DIR paint the depth of images: colours, 16-bit PNG, .npz
  locate MODEL IMAGE EXPRESSION  find where it is in space, in metres
  page MODEL                     a page to try a model on: ask, point, depth, 3-D
  serve MODEL                    answer over HTTP: OpenAI's protocol with pictures, points, depth, places
  demo --out DIR                 a model on the pictures inside the package, on one page
  doctor                         what machine this is, what is missing, and whether a model runs

  export-model MODEL --to LAYOUT write a checkpoint for transformers, vLLM and SGLang, or in the authors' layout
  export-onnx MODEL --out DIR    write the depth generator, or a policy's action expert, for ONNX Runtime
  card MODEL                     the model card that a checkpoint makes of itself
  push MODEL OWNER/NAME          put a checkpoint on the Hugging Face hub
  train RECIPE --out DIR         carry a training recipe out, or go on with it; --plan tells what it takes
  adapt MODEL FRAMES --out DIR   adapt a model to RGB-D frames of one place, tested on the last of them
  evaluate MODEL... --out DIR    score models on benchmarks, or on scenes they have never seen, beside blind baselines
  compare RESULTS RESULTS        whether one model is better than another, with intervals
  verify MODEL --out DIR         one page about a checkpoint: what it is, and whether it is better than nothing
  probe MODEL --out DIR          how much geometry a model's image states hold
  experiment NAME --out DIR      train arms on several seeds and compare them: does generating depth help?
  quickstart                     the whole walk in minutes: data, training, answers, depth, report
  curate PLAN --out DIR          make a set of samples: sources, depth, questions, filters, funnel
  inspect DIR                    count, judge and show a set on one page
  export-data DIR --to FORMAT    write a set in another project's layout
  encode DIR                     keep the latents of a set's depth beside it
  fingerprint DIR --out FILE     what `curate --benchmark` needs to keep a benchmark out of a set

  vla COMMAND                    robots that act: record, train, evaluate, run, distill, serve, trial

MODEL is a folder that `train` wrote, owner/model of a hub, or the name of a shipped model: nano

  gemvlm ask nano desk.png "Which is closer, the mug or the book?"
  gemvlm depth nano desk.png --out depth

  --help     this page
  --version  the version
"""

VLA = "vla"
COMMANDS = {
    "ask": "models",
    "point": "using",
    "box": "using",
    "plan": "using",
    "depth": "models",
    "locate": "using",
    "page": "serving",
    "serve": "serving",
    "demo": "using",
    "doctor": "using",
    "export-model": "models",
    "export-onnx": "exporting",
    "train": "training",
    "adapt": "training",
    "quickstart": "training",
    "evaluate": "scores",
    "card": "sharing",
    "push": "sharing",
    "compare": "scores",
    "verify": "scores",
    "probe": "scores",
    "experiment": "experiments",
    "curate": "sets",
    "inspect": "sets",
    "export-data": "sets",
    "encode": "sets",
    "fingerprint": "sets",
    **{f"{VLA} {name}": "vla" for name in ("record", "train", "distill")},
    **{f"{VLA} {name}": "vla_play" for name in ("evaluate", "run")},
    **{f"{VLA} {name}": "vla_robot" for name in ("serve", "trial")},
}
"""Name → file of `commands/` whose function has that name; `vla NAME` is the function NAME."""

EXTRAS = {
    "mujoco": "worlds",
    "metaworld": "worlds",
    "ray": "curate",
    "av": "curate",
    "fsspec": "curate",
    "peft": "lora",
    "h5py": "robots",
    "fastapi": "serve",
    "msgpack": "serve",
    "prometheus_client": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "websockets": "serve",
    "gradio": "web",
    "rerun": "rerun",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
}
"""Package → the extra that brings it."""


def command(name: str) -> Callable[..., None]:
    """The function of a command. ValueError lists those there are."""
    if name not in COMMANDS:
        raise ValueError(f"unknown command {name!r}; there are {', '.join(COMMANDS)} (see gemvlm --help)")
    return getattr(import_module(f"gemvlm.commands.{COMMANDS[name]}"), name.split()[-1].replace("-", "_"))


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
    if name == VLA:
        if not rest or rest[0] in ("-h", "--help"):
            from gemvlm.commands.vla import HELP as VLA_HELP

            print(VLA_HELP, end="")
            return 0
        name, *rest = f"{VLA} {rest[0]}", *rest[1:]
    from tyro import cli

    try:
        cli(command(name), args=rest, prog=f"gemvlm {name}")
    except (ValueError, OSError, FloatingPointError) as error:
        return _refuse(str(error))
    except ImportError as error:
        if (error.name or "").split(".")[0] == "gemvlm":
            raise
        if isinstance(error, ModuleNotFoundError):
            extra = EXTRAS.get((error.name or "").split(".")[0])
            wanted = f"'gemvlm[{extra}]'" if extra else error.name
            return _refuse(f"{error.name} is not installed: pip install {wanted}")
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _refuse(message: str) -> int:
    print("gemvlm: " + " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
