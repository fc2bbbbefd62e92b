"""Curated samples and views per second: the simulated tabletop from nothing to a finished set, on one core and on two.

    python benchmarks/curation.py [SAMPLES]

By wall time, start of the worker processes included; run it on an idle machine. The second table says where one core's
time goes: making scenes and questions, and what curation adds to that (checks, prints, storing, decisions, copying).
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gemvlm.curation.engine import engine_of
from gemvlm.curation.pipeline import curate
from gemvlm.curation.source import Rejection
from gemvlm.recipes import get_plan
from gemvlm.runtime import available_cores


def main(samples: int) -> None:
    plan = replace(get_plan("tabletop_100k"), limit=samples)
    alone_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2) if available_cores() > 1 else (1,):
            start = time.perf_counter()
            made = curate(plan, Path(folder) / str(processes), engine_of("local", processes)).manifest
            seconds = time.perf_counter() - start
            alone_s = alone_s or seconds
            rates = {"samples": made.samples, "views": made.frames, "questions": made.turns}
            line = "  ".join(
                f"{count / seconds:7.1f} {what}/s ({count / seconds / processes:.1f} per core)"
                for what, count in rates.items()
            )
            print(f"{processes} process(es): {line}  {alone_s / seconds:.2f} times one")
    source = plan.sources[0].open()
    start, read = time.perf_counter(), 0
    for part in source.parts():
        read += sum(not isinstance(item, Rejection) for item in source.read(part))
        if read >= samples:
            break
    source_s = time.perf_counter() - start
    share = source_s * samples / read / alone_s
    print(f"making samples {share:.0%} of one core's time, curation {1 - share:.0%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
