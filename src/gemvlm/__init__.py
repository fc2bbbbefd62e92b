"""GEM: an embodied vision-language model that learns from generating depth.

    import gemvlm
    pipeline = gemvlm.load("nano")
    pipeline.ask("desk.png", "Which is closer, the mug or the book?").text
    pipeline.depth("desk.png").depth.values

Importing this package costs nothing: what needs torch is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gemvlm.inference import (
        Answer,
        DepthPrediction,
        GemPipeline,
        LocateRequest,
        Location,
        Plan,
        TextStream,
        load,
        read_video,
    )

__all__ = [
    "Answer",
    "DepthPrediction",
    "GemPipeline",
    "LocateRequest",
    "Location",
    "Plan",
    "TextStream",
    "__version__",
    "load",
    "read_video",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("gemvlm")
    if name in __all__:
        import gemvlm.inference

        return getattr(gemvlm.inference, name)
    raise AttributeError(f"module 'gemvlm' has no attribute {name!r}")
