"""Other words from a model that is not trusted: asked over HTTP, read again by rules, thrown away if they lie."""

from __future__ import annotations

from gemvlm.curation.annotator.client import DOWN, Annotator, Endpoint, Reply
from gemvlm.curation.annotator.meaning import changed
from gemvlm.curation.annotator.rephrase import Rephrased, caption, caption_refused, question_refused, rephrase

__all__ = [
    "DOWN",
    "Annotator",
    "Endpoint",
    "Rephrased",
    "Reply",
    "caption",
    "caption_refused",
    "changed",
    "question_refused",
    "rephrase",
]
