"""Everything that can answer, behind one protocol, and the words by which a command line names it."""

from __future__ import annotations

from gemvlm.evaluation.answerers.answerer import Answerer, Reply
from gemvlm.evaluation.answerers.baselines import Baseline, Blind
from gemvlm.evaluation.answerers.endpoint import EndpointAnswerer, Patience
from gemvlm.evaluation.answerers.named import open_answerer

__all__ = ["Answerer", "Baseline", "Blind", "EndpointAnswerer", "Patience", "Reply", "open_answerer"]
