"""The stop rule's error rate, by counting and by simulation, and sheets as people fill them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gemvlm.evaluation.sequential_test import decides, evidence, false_alarm, lasting_interval, power
from gemvlm.evaluation.trial import (
    COLUMNS,
    SEALED,
    SHEET,
    plan_trial,
    policy_of,
    read_trial,
    trial_report,
    trial_status,
)


def test_evidence_is_a_martingale_under_a_fair_coin() -> None:
    for wins, losses in [(0, 0), (1, 0), (3, 2), (10, 1), (0, 7)]:
        following = (evidence(wins + 1, losses) + evidence(wins, losses + 1)) / 2
        assert following == pytest.approx(evidence(wins, losses))
    assert evidence(0, 0) == 1 and evidence(5, 2) == evidence(2, 5)


def test_equal_policies_are_told_apart_less_often_than_promised() -> None:
    exact = [false_alarm(n) for n in (7, 20, 60, 400)]
    assert exact == sorted(exact) and exact[-1] <= 0.05 and exact[2] > 0.01
    simulated = power(0.5, 0.5, 60, runs=6000, seed=1)
    assert simulated.decided <= 0.05 and simulated.wrong == pytest.approx(simulated.decided / 2, abs=0.008)
    alone = power(1.0, 0.0, 20)
    assert (alone.decided, alone.wrong, alone.typical_pairs) == (1.0, 0.0, 8.0)


def test_the_exact_error_rate_is_that_of_the_rule_as_it_is_carried_out() -> None:
    rng = np.random.default_rng(5)
    runs = [decides(rng.choice([-1, 1], 40).tolist()) is not None for _ in range(500)]
    assert np.mean(runs) == pytest.approx(false_alarm(40), abs=0.02)


def test_pairs_that_end_alike_change_nothing_and_the_first_crossing_counts() -> None:
    assert decides([1] * 8) == 8 and decides([1] * 7) is None
    assert decides([0, 1] * 8) == 16
    assert decides([1] * 8 + [-1] * 30) == 8


def test_better_policies_are_found_and_seldom_the_other_way_round() -> None:
    found = power(0.8, 0.5, 80)
    assert 0.5 < found.decided < 0.95 and found.wrong < 0.005 and 20 < found.typical_pairs < 60


def test_intervals_hold_at_every_moment_at_once() -> None:
    rng, missed = np.random.default_rng(2), 0
    for _ in range(100):
        successes = np.cumsum(rng.random(40) < 0.7)
        bounds = [lasting_interval(int(count), n) for n, count in enumerate(successes, start=1)]
        missed += any(not bound.low <= 0.7 <= bound.high for bound in bounds)
    assert missed <= 10  # 5 % of 100, and two deviations more
    assert lasting_interval(0, 10).low == 0 and lasting_interval(10, 10).high == 1
    tight = lasting_interval(500, 1000)
    assert 0.44 < tight.low < 0.5 < tight.high < 0.56
    with pytest.raises(ValueError, match="3 successes of 2"):
        lasting_interval(3, 2)


def fill(folder: Path, rates: dict[str, float], pairs: int | None = None, separator: str = ",") -> None:
    """Fills the sheet as someone would who sees each trial succeed at its policy's rate."""
    rng = np.random.default_rng(9)
    with (folder / SHEET).open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows[: None if pairs is None else 2 * pairs]:
        success = rng.random() < rates[policy_of(folder, int(row["trial"]))]
        row["success"] = "1" if success else "0"
        row["progress"] = "" if success else "0.5" if separator == "," else "0,5"
    with (folder / SHEET).open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def plan(out: Path, pairs: int = 24, seed: int = 3) -> Path:
    plan_trial(("old", "new"), ("pour", "wipe", "stack"), pairs, seed, out)
    return out


def test_a_plan_is_balanced_blind_and_a_function_of_its_seed(tmp_path: Path) -> None:
    folder = plan(tmp_path / "a")
    with (folder / SHEET).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48 and Counter(row["task"] for row in rows) == {"pour": 16, "wipe": 16, "stack": 16}
    order = [policy_of(folder, number) for number in range(1, 49)]
    assert all({order[i], order[i + 1]} == {"old", "new"} for i in range(0, 48, 2))
    for task in ("pour", "wipe", "stack"):
        first = Counter(order[i] for i in range(0, 48, 2) if rows[i]["task"] == task)
        assert first == {"old": 4, "new": 4}
    for name in (SHEET, "sheet.html", "trial.json"):
        text = (folder / name).read_text()
        assert "seed" not in text and ("old" not in text.replace("fold", "") or name != SHEET)
    assert "old" not in (folder / SEALED).read_text() and "pour" in (folder / "sheet.html").read_text()
    again, other = plan(tmp_path / "b"), plan(tmp_path / "c", seed=4)
    assert [policy_of(again, n) for n in range(1, 49)] == order != [policy_of(other, n) for n in range(1, 49)]
    with pytest.raises(ValueError, match="there is no trial 49; they count from 1 to 48"):
        policy_of(folder, 49)


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_filled_sheet_is_read_back_to_the_right_policy(tmp_path: Path, separator: str) -> None:
    folder = plan(tmp_path)
    fill(folder, {"old": 0.1, "new": 0.95}, separator=separator)
    assert trial_status(folder) == "Stop: the policies differ (24 of 24 pairs are complete)."
    result = read_trial(folder)
    assert result.better == "new" and result.policies == ("old", "new") and result.stopped_after is not None
    text = trial_report(result)
    assert "**new is better**" in text and "| pour |" in text and "0 of 24 pairs were not played" in text
    assert len(result.pairs) == 24 and all(a.pair == b.pair and a.task == b.task for a, b in result.pairs)
    wins = sum(a.success > b.success for a, b in result.pairs)
    assert f"old alone succeeded in {wins} pairs" in text


def test_equal_policies_stay_blind_until_the_plan_is_played(tmp_path: Path) -> None:
    folder = plan(tmp_path)
    assert trial_status(folder) == "Go on: 0 of 24 pairs are complete."
    assert "No pair is complete" in trial_report(read_trial(folder, unblind=True))
    fill(folder, {"old": 0.5, "new": 0.5}, pairs=10)
    assert trial_status(folder).startswith("Go on: 10 of 24")
    with pytest.raises(ValueError, match="10 of 24 pairs are complete and the rule says go on"):
        read_trial(folder)
    assert len(read_trial(folder, unblind=True).pairs) == 10
    fill(folder, {"old": 0.5, "new": 0.5})
    result = read_trial(folder)
    assert result.better is None and "No difference seen" in trial_report(result)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"success": "maybe"}, "trial 3, success: 'maybe'; write 1 or 0"),
        ({"success": "0", "progress": ""}, "trial 3, progress: ''; write how much"),
        ({"success": "0", "progress": "1.5"}, "trial 3, progress: '1.5'"),
        ({"success": "1", "progress": "0.5"}, "trial 3, progress: '0.5'"),
        ({"success": "0", "progress": "nan"}, "trial 3, progress: 'nan'"),
        ({"trial": "7"}, "trial 3: is numbered 7"),
        ({"task": "fly"}, "trial 3, task: 'fly' is not of this trial"),
    ],
)
def test_a_sheet_filled_wrongly_names_row_and_column(tmp_path: Path, change: dict[str, str], words: str) -> None:
    folder = plan(tmp_path)
    with (folder / SHEET).open() as file:
        rows = list(csv.DictReader(file))
    rows[2].update(change)
    with (folder / SHEET).open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ValueError, match=r"sheet\.csv") as caught:
        trial_status(folder)
    assert words in str(caught.value)


def test_what_was_changed_or_lost_is_refused(tmp_path: Path) -> None:
    folder = plan(tmp_path / "a")
    with pytest.raises(ValueError, match="holds a trial already"):
        plan(folder)
    (folder / SEALED).write_text((folder / SEALED).read_text().replace("e", "f", 1))
    with pytest.raises(ValueError, match="was changed after the trial was planned"):
        trial_status(folder)
    (folder / SEALED).unlink()
    with pytest.raises(ValueError, match="the assignment is missing"):
        policy_of(folder, 1)
    with pytest.raises(ValueError, match="no trial here"):
        trial_status(tmp_path)
    short = plan(tmp_path / "b")
    (short / SHEET).write_text("\n".join((short / SHEET).read_text().splitlines()[:9]) + "\n")
    with pytest.raises(ValueError, match="8 rows; it must have the 48"):
        trial_status(short)
    with pytest.raises(ValueError, match="compares two policies"):
        plan_trial(("a", "a"), ("pour",), 4, 0, tmp_path / "c")


@pytest.mark.parametrize(
    ("policies", "tasks", "pairs", "says"),
    [
        (("old", "old"), ("pick",), 4, "both are 'old': give two names"),
        (("old", "new"), (), 4, r"not \[\]: say what the robot is asked to do \(--tasks\)"),
        (("old", "new"), ("pick", "pick"), 4, "each once"),
        (("old", "new"), ("pick", "place"), 1, "1 pairs for 2 tasks"),
    ],
)
def test_a_trial_of_nothing_is_refused_by_what_is_missing(
    tmp_path: Path, policies: tuple[str, str], tasks: tuple[str, ...], pairs: int, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        plan_trial(policies, tasks, pairs, 0, tmp_path / "trial")
