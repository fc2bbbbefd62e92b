"""What each command of the command line does, one thin function each; what it needs is imported once it runs.

Options are read from a function's signature and docstring. Nobody waits for torch to read a page of help.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Model = Annotated[Positional[str], arg(metavar="MODEL")]
Folder = Annotated[Positional[Path], arg(metavar="DIR")]
Device = Annotated[str | None, arg(metavar="NAME")]
Precision = Literal["float32", "bfloat16"]
"""`runtime.Precision`, which stands beside torch."""
Scheme = Literal["int8", "int8_dynamic", "int4"] | None
"""`inference.quantise.Scheme`, or the weights as they are."""
