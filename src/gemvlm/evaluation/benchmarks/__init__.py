"""Published benchmarks, one short file each, found by name; imported when they are opened."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from gemvlm.evaluation.benchmark import Benchmark

BENCHMARKS: dict[str, str] = {
    "vsi_bench": "vsi_bench:VsiBench",
    "cv_bench": "cv_bench:CvBench",
    "blink": "blink:Blink",
    "embspatial": "embspatial:EmbSpatial",
    "sat": "sat:Sat",
    "erqa": "erqa:Erqa",
    "mmsi": "mmsi:Mmsi",
    "viewspatial": "viewspatial:ViewSpatial",
    "mindcube": "mindcube:MindCube",
    "spar_bench": "spar_bench:SparBench",
    "robospatial_home": "robospatial_home:RoboSpatialHome",
    "refspatial_bench": "refspatial_bench:RefSpatialBench",
    "where2place": "where2place:Where2Place",
    "roboafford": "roboafford:RoboAfford",
    "sharerobot_affordance": "sharerobot:ShareRobotAffordance",
    "sharerobot_trajectory": "sharerobot:ShareRobotTrajectory",
    "robovqa": "robovqa:RoboVqa",
    "egoplan_bench2": "egoplan_bench2:EgoPlanBench2",
    "cosmos_reason1": "cosmos_reason1:CosmosReason1",
}
"""Name to module and class."""


def open_benchmark(name: str, place: str, protocol: str | None = None) -> Benchmark:
    """Benchmark `name` read from `place`, a local folder or a hub id, by the publisher's protocol if none is named.

    ValueError for an unknown name or protocol.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark {name!r} is unknown; choose from {', '.join(sorted(BENCHMARKS))}")
    module, class_name = BENCHMARKS[name].split(":")
    found = getattr(import_module(f"{__name__}.{module}"), class_name)
    return found.open(place, protocol or "official")


def place_of(name: str, data: str | None) -> str:
    """Where benchmark `name` is looked for: the folder of its name under `data`, else `data` itself (or a hub id)."""
    if data is None:
        raise ValueError(
            f"{name}: say where it is: --data FOLDER (with a folder {name!r} in it, or itself it), or a hub id"
        )
    inner = Path(data) / name
    return str(inner) if inner.is_dir() else data
