"""Gaps of probes: a planted gain is found, none is not, and only a gain in both is credited to geometry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemvlm.experiments import get
from gemvlm.experiments.analysis import Gap
from gemvlm.experiments.measure import write_json
from gemvlm.experiments.mechanism import (
    RULE,
    ProbeScore,
    credit,
    finished_probes,
    probe_data,
    probe_gaps,
    read_probe,
)
from gemvlm.experiments.report_parts import add_probes, gap_rows
from gemvlm.figure import Report
from gemvlm.sample import Frame, Sample
from gemvlm.statistics import Difference, Interval

EXPERIMENT = get("verdict_nano")
FRAMES = 40
FIRST = EXPERIMENT.contrasts[0]


def score(trial: int, seed: int, r2: float, target: str = "depth") -> ProbeScore:
    """Frames whose errors are about 1 - r2 of their spread; scenes are alike in all arms, seeds scatter by 0.01."""
    spreads = np.random.default_rng((3, trial, len(target))).uniform(5, 15, FRAMES)
    rng = np.random.default_rng((5, trial, seed, round(1000 * r2)))
    errors = spreads * (1 - r2 + rng.normal(0, 0.01) + rng.normal(0, 0.05, FRAMES))
    frames = tuple((str(i // 2), float(e), float(s)) for i, (e, s) in enumerate(zip(errors, spreads, strict=True)))
    mean = 1 - errors.sum() / spreads.sum()
    return ProbeScore(2, Interval(float(mean), mean - 0.02, mean + 0.02, FRAMES), frames)


def probes(trial: int, r2: dict[str, float], seeds: int = 3):
    return {
        arm: {seed: {t: score(trial, seed, r2[arm], t) for t in ("depth", "relief")} for seed in range(seeds)}
        for arm in r2
    }


def test_frames_add_up_to_the_score() -> None:
    found = score(0, 0, 0.6)
    assert found.by_frame().mean() == pytest.approx(found.score.mean)


def test_a_planted_gain_is_found_and_the_same_twice_is_none() -> None:
    gaps = probe_gaps(EXPERIMENT, probes(0, {"text": 0.5, "depth": 0.62, "shuffled": 0.62}))
    of = {(g.contrast.control, g.metric): g for g in gaps}
    assert set(of) == {(c, f"probe of {t}") for c in ("text", "shuffled") for t in ("depth", "relief")}
    assert of["text", "probe of depth"].decided
    assert of["text", "probe of depth"].difference.interval.mean == pytest.approx(0.12, abs=0.03)
    nulls = [probe_gaps(EXPERIMENT, probes(t, {"text": 0.5, "depth": 0.501})) for t in range(20)]
    assert sum(any(gap.decided for gap in gaps) for gaps in nulls) <= 4


def test_one_seed_has_no_gap() -> None:
    assert probe_gaps(EXPERIMENT, probes(0, {"text": 0.5, "depth": 0.7}, seeds=1)) == []


def test_probes_of_other_frames_are_not_compared() -> None:
    found = probes(0, {"text": 0.5, "depth": 0.6})
    short = found["depth"][1]["depth"]
    found["depth"][1]["depth"] = replace(short, frames=short.frames[:-2])
    with pytest.raises(ValueError, match="must be the same"):
        probe_gaps(EXPERIMENT, found)


def gap(metric: str, mean: float, p: float) -> Gap:
    return Gap(FIRST, metric, Difference(Interval(mean, mean - 0.01, mean + 0.01, 10), p, 0.01), p)


def test_a_gain_in_answers_alone_is_not_credited() -> None:
    better, same = gap("score", 0.05, 0.001), gap("score", 0.001, 0.9)
    seen, unseen = gap("probe of depth", 0.08, 0.002), gap("probe of depth", 0.0, 0.8)
    assert credit([better], [seen], FIRST).endswith("may be credited to it.")
    assert credit([better], [unseen], FIRST).startswith(RULE) and "could be told from none" in credit(
        [better], [unseen], FIRST
    )
    assert credit([better], [replace(seen, p_value=0.2)], FIRST).startswith(RULE)
    assert "which the answers do not show" in credit([same], [seen], FIRST)
    assert credit([same], [unseen], FIRST).startswith("No gain in geometry could be told from none")
    assert credit([], [], FIRST) == RULE and "Fewer than two seeds" in credit([better], [], FIRST)


def test_files_are_found_again_beside_the_arms(tmp_path: Path) -> None:
    folder = tmp_path / "seed-0" / "depth"
    folder.mkdir(parents=True)
    (tmp_path / "start").mkdir()
    kept = score(0, 0, 0.4)
    each = {"layer": kept.layer, "score": vars(kept.score), "frames": kept.frames, "layers": []}
    for place in (folder, tmp_path / "start"):
        write_json({"targets": {"depth": each}}, place / "probe.json")
    assert read_probe(folder / "probe.json") == {"depth": kept}
    assert set(finished_probes(EXPERIMENT, tmp_path)) == {"depth", "start"}
    assert [path.name for path in folder.iterdir()] == ["probe.json"]


def test_scenes_are_parted_and_no_scene_is_in_two_parts() -> None:
    frame = Frame(np.zeros((8, 8, 3), np.uint8))
    samples = [Sample(str(i), (frame,), (), f"scene-{i // 2}", "test") for i in range(16)]
    data = probe_data(samples)
    assert [len(part) for part in (data.train, data.development, data.test)] == [10, 2, 4]
    with pytest.raises(ValueError, match="give at least three"):
        probe_data(samples[:2])


def test_the_page_says_the_rule_beside_the_scores(tmp_path: Path) -> None:
    found = probes(0, {"text": 0.5, "depth": 0.62})
    gaps = probe_gaps(EXPERIMENT, found)
    report = Report("x")
    add_probes(report, found, gaps, tmp_path)
    page = report.to_html()
    assert RULE in page and "depth - text" in page and "±" in page
    assert gap_rows(gaps)[0]["matched"] == ("steps",)
