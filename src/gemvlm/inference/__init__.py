"""Checkpoint → answers, points and depth."""

from __future__ import annotations

from gemvlm.inference.answer import Answer
from gemvlm.inference.depth import DepthPrediction
from gemvlm.inference.load import load
from gemvlm.inference.pipeline import GemPipeline

__all__ = ["Answer", "DepthPrediction", "GemPipeline", "load"]
