"""Pictures without 3-D truth: detections and depth become a graph that question families can ask about."""

from __future__ import annotations

from gemvlm.curation.scene_graph.detections import Detection, from_arrays, read_detections
from gemvlm.curation.scene_graph.graph import GraphRules, SceneGraph, make_graph
from gemvlm.curation.scene_graph.questions import ask, ask_about, families

__all__ = [
    "Detection",
    "GraphRules",
    "SceneGraph",
    "ask",
    "ask_about",
    "families",
    "from_arrays",
    "make_graph",
    "read_detections",
]
