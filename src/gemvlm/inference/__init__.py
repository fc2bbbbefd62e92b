"""Checkpoint → answers, points, boxes, plans, depth, places in space."""

from __future__ import annotations

from gemvlm.inference.answer import Answer
from gemvlm.inference.depth import DepthPrediction
from gemvlm.inference.images import read_video
from gemvlm.inference.load import load
from gemvlm.inference.locate import LocateRequest, Location
from gemvlm.inference.phrases import Plan
from gemvlm.inference.pipeline import GemPipeline, Request
from gemvlm.inference.streaming import TextStream

__all__ = [
    "Answer",
    "DepthPrediction",
    "GemPipeline",
    "LocateRequest",
    "Location",
    "Plan",
    "Request",
    "TextStream",
    "load",
    "read_video",
]
