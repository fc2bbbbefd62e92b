"""Scores of rollouts: intervals, weights of suites, comparisons on the same starts, and the page with its videos."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gemvlm.evaluation.rollout.episode import EPISODES, RUN, TIMEOUT, Episode
from gemvlm.evaluation.rollout_table import (
    Rollouts,
    compare_rollouts,
    markdown,
    overall_table,
    summary,
    task_table,
    write_report,
)
from gemvlm.statistics import proportion_interval

Rule = Callable[[str, int, int], bool]


def written(
    folder: Path,
    player: str,
    rule: Rule,
    tasks: Sequence[tuple[str, str]] = (("a", ""), ("b", "")),
    starts: int = 20,
    seeds: int = 1,
    **changes: object,
) -> Rollouts:
    """A finished run in which `rule(task, start, seed)` says what succeeded."""
    folder.mkdir(parents=True)
    protocol = {
        "name": "points", "tasks": [{"name": name, "steps": 20, "group": group} for name, group in tasks],
        "starts": list(range(starts)), "seeds": list(range(seeds)), "success": "any_step", "execute": 4,
    }  # fmt: skip
    run = {"protocol": protocol, "player": player, "about": {}, "contract": {}, "world": {"simulator": "1"},
           "libraries": {}, **changes}  # fmt: skip
    (folder / RUN).write_text(json.dumps(run))
    lines = []
    for name, _ in tasks:
        for start in range(starts):
            for seed in range(seeds):
                won = rule(name, start, seed)
                reason = None if won else TIMEOUT if start % 2 else "policy error: RuntimeError: out of memory at 0x12"
                lines.append(Episode(f"{name}/{start}/{seed}", name, start, seed, won, 10 if won else 20,
                                     10 if won else None, reason, 0.5, "1.0 abc").line())  # fmt: skip
    (folder / EPISODES).write_text("".join(lines))
    return Rollouts.read(folder)


def test_a_task_has_wilsons_interval_and_the_mean_one_over_starts_and_one_over_tasks(tmp_path: Path) -> None:
    played = written(tmp_path / "r", "p", lambda task, start, _: task == "a" and start < 15)
    assert played.of_task("a") == proportion_interval(15, 20) and played.of_task("b").mean == 0
    assert played.of_task("b").high == pytest.approx(0.161, abs=0.001)  # Wilson's for 0 of 20
    starts = played.success()
    assert starts.mean == 0.375 and 0.2 < starts.low < 0.375 < starts.high < 0.55
    assert math.isnan(played.success("tasks").low)  # two tasks say nothing of others
    many = tuple((name, "") for name in "abcdefgh")
    split = written(tmp_path / "split", "p", lambda task, start, _: task < "e", tasks=many)
    alike = written(tmp_path / "alike", "p", lambda task, start, _: start % 2 == 0, tasks=many)
    wide, narrow = split.success("tasks"), alike.success("tasks")
    assert wide.mean == narrow.mean == 0.5
    assert wide.high - wide.low > 0.6 > 3 * (narrow.high - narrow.low) / 2 > 0.1
    half = written(tmp_path / "half", "p", lambda task, *_: task == "a").success()
    width = proportion_interval(20, 20).mean - proportion_interval(20, 20).low
    assert (half.low, half.high) == pytest.approx((0.5 - width / 2, 0.5 + width / 2))  # not certain, though all alike
    alone = written(tmp_path / "one", "p", lambda task, start, _: start < 15, tasks=(("a", ""),))
    found, wilson = alone.success(), proportion_interval(15, 20)
    assert (found.mean, found.low, found.high) == pytest.approx((wilson.mean, wilson.low, wilson.high))
    assert math.isnan(alone.success("tasks").low)


def test_suites_count_alike_whatever_their_number_of_tasks(tmp_path: Path) -> None:
    tasks = (("a", "one"), ("b", "two"), ("c", "two"), ("d", "two"))
    played = written(tmp_path / "r", "p", lambda task, *_: task == "a", tasks=tasks)
    assert played.success().mean == pytest.approx(0.5)
    assert played.weights.tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])


def test_seeds_of_one_start_are_no_further_starts(tmp_path: Path) -> None:
    once = written(tmp_path / "1", "p", lambda task, start, _: start < 10, tasks=(("a", ""),))
    thrice = written(tmp_path / "3", "p", lambda task, start, _: start < 10, tasks=(("a", ""),), seeds=3)
    width = [found.high - found.low for found in (once.of_task("a"), thrice.of_task("a"))]
    assert width[1] > 0.9 * width[0]
    sure = written(tmp_path / "s", "p", lambda *_: True, tasks=(("a", ""),), seeds=3)
    assert sure.of_task("a").low == pytest.approx(proportion_interval(20, 20).low)


def test_players_are_compared_on_the_same_starts(tmp_path: Path) -> None:
    good = written(tmp_path / "g", "good", lambda task, start, _: start < 18)
    bad = written(tmp_path / "b", "bad", lambda task, start, _: start < 6)
    overall, *each = compare_rollouts(good, bad)
    assert overall.difference.interval.mean == pytest.approx(0.6) and overall.difference.p_value < 0.01
    assert 0 < overall.difference.detectable < 0.4 and overall.sign_p is not None and overall.sign_p < 1e-6
    assert [gap.part for gap in each] == ["a", "b"] and all(gap.difference.is_significant for gap in each)
    same = compare_rollouts(good, good, parts=False)[0]
    assert same.difference.p_value == 1.0 and same.verdict == "no difference seen"


def test_what_was_not_played_alike_is_not_compared(tmp_path: Path) -> None:
    good = written(tmp_path / "g", "good", lambda *_: True)
    newer = written(tmp_path / "n", "good", lambda *_: True, world={"simulator": "2"})
    fewer = written(tmp_path / "f", "good", lambda *_: True, starts=10)
    with pytest.raises(ValueError, match=r"can't be compared \(world: \{'simulator': '1'\} and \{'simulator': '2'\}"):
        compare_rollouts(good, newer)
    with pytest.raises(ValueError, match=r"can't be compared \(protocol"):
        compare_rollouts(good, fewer)


def test_a_run_that_is_not_finished_has_no_score(tmp_path: Path) -> None:
    played = written(tmp_path / "r", "p", lambda *_: True)
    lines = (played.folder / EPISODES).read_text().splitlines(keepends=True)
    (played.folder / EPISODES).write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="39 of 40 episodes were played"):
        Rollouts.read(played.folder)
    (played.folder / EPISODES).write_text("".join([*lines[:-1], lines[0]]))
    with pytest.raises(ValueError, match="40 of 40"):
        Rollouts.read(played.folder)
    with pytest.raises(ValueError, match="no rollouts here"):
        Rollouts.read(tmp_path)


def test_tables_and_page(tmp_path: Path) -> None:
    good = written(tmp_path / "g", "good", lambda task, start, _: start < 18)
    blind = written(tmp_path / "b", "mean | trajectory", lambda task, start, _: start < 6, about={"blind": True})
    headings, rows = overall_table([good, blind])
    told = dict(zip(headings, rows[1], strict=True))
    assert told["timeouts"] == "14" and told["errors"] == "14" and told["steps of a success"] == "10"
    columns, lines_of_tasks = task_table([good, blind])
    assert columns[-1] == "best blind" and lines_of_tasks[-1][0] == "mean over tasks"
    assert lines_of_tasks[-1][-1] == "30.0 (mean | trajectory)"
    assert task_table([good])[0] == ["success, %", "good"]
    text = markdown(good, [blind])
    assert told["lost again"] == "0"
    assert "mean \\| trajectory" in text and "14 × policy error: RuntimeError" in text and "A is better" in text
    (tmp_path / "g" / "videos").mkdir()
    film = b"GIF89a" + b"0" * 20
    lines = [json.loads(line) for line in (good.folder / EPISODES).read_text().splitlines()]
    for line in lines[:2]:
        line["video"] = f"videos/{line['start']}.gif"
        (good.folder / line["video"]).write_bytes(film)
    (good.folder / EPISODES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert write_report(Rollouts.read(good.folder), [blind], tmp_path / "out") == text
    page = (tmp_path / "out" / "rollouts.html").read_text()
    assert page.count("data:image/gif;base64") == 2 and "done after 10" in page
    plain = json.loads((tmp_path / "out" / "rollouts.json").read_text())
    assert [one["player"] for one in plain] == ["good", "mean | trajectory"]
    assert plain[0]["success"] == summary(good)["success"] == pytest.approx(0.9)
    assert plain[1]["failures"] == {"timeout": 14, "policy error: RuntimeError": 14}
