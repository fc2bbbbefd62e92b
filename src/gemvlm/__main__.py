"""The command line: `gemvlm COMMAND ...`. Each command is a function of `commands/`, imported once it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

HELP = """\
gemvlm: an embodied vision-language model that learns from generating depth

usage: gemvlm COMMAND ...        gemvlm COMMAND --help tells the options of a command

  ask MODEL IMAGE... QUESTION    answer a question about one image or several
  depth MODEL IMAGE... --out DIR paint the depth of images: colours, 16-bit PNG, .npz
  export-model MODEL --to LAYOUT write a checkpoint for transformers, vLLM and SGLang, or in the authors' layout
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

MODEL is a folder that `train` wrote, or the name of a shipped model: nano

  gemvlm ask nano desk.png "Which is closer, the mug or the book?"
  gemvlm depth nano desk.png --out depth

  --help     this page
  --version  the version
"""

COMMANDS = {
    "ask": "models",
    "depth": "models",
    "export-model": "models",
    "train": "training",
    "adapt": "training",
    "quickstart": "training",
    "evaluate": "scores",
    "compare": "scores",
    "verify": "scores",
    "probe": "scores",
    "experiment": "experiments",
    "curate": "sets",
    "inspect": "sets",
    "export-data": "sets",
    "encode": "sets",
    "fingerprint": "sets",
}
"""Name → file of `commands/` whose function has that name."""


def command(name: str) -> Callable[..., None]:
    """The function of a command. ValueError lists those there are."""
    if name not in COMMANDS:
        raise ValueError(f"unknown command {name!r}; there are {', '.join(COMMANDS)} (see gemvlm --help)")
    return getattr(import_module(f"gemvlm.commands.{COMMANDS[name]}"), name.replace("-", "_"))


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
    from tyro import cli

    try:
        cli(command(name), args=rest, prog=f"gemvlm {name}")
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
